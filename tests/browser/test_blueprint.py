import json
import urllib.request

STEPS = 2


def get(url):
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def test_blueprint_is_listed_and_runs(editor):
    listed = get(f"{editor.url}/global_subgraphs")
    (key,) = (key for key, entry in listed.items() if entry["name"] == "Chain-of-Zoom")
    blueprint = get(f"{editor.url}/global_subgraphs/{key}")["data"]
    editor.use_renderer("classic")
    end = editor.run(
        """async ([blueprint, steps]) => {
            await app.loadGraphData(JSON.parse(blueprint))
            const [zoom] = app.graph.nodes
            zoom.widgets.find(widget => widget.name === 'steps').value = steps
            const add = type => {
                const node = LiteGraph.createNode(type)
                app.graph.add(node)
                return node
            }
            add('CoZSamplePicture').connect(0, zoom, 0)
            zoom.connect(0, add('PreviewImage'), 0)
            const end = new Promise(resolve => {
                for (const name of ['execution_success', 'execution_error'])
                    app.api.addEventListener(name, ({detail}) => resolve([name, detail]), {once: true})
            })
            await app.queuePrompt(0)
            return end
        }""",
        [blueprint, STEPS],
    )
    assert end[0] == "execution_success", end
    history = get(f"{editor.url}/history/{end[1]['prompt_id']}")
    outputs = history[end[1]["prompt_id"]]["outputs"]
    (record,) = (ui["coz_chain"][0] for ui in outputs.values() if "coz_chain" in ui)
    assert json.loads(record)["steps"] == STEPS
