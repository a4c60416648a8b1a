import pytest

from coz.text.answer import EXCLUDED_PHRASES, clean_answer


@pytest.mark.parametrize(
    "answer",
    [
        "Leaf, green, veins.",
        "a cat's eye; orange fur (close-up): 3.5 mm, 12:30, 1000000 hairs",
        "Image of a cat. It is a photo, zoomed out.",
        "红色的毛，白色的爪",
        "می\u200cخواهم",
        "fur fur",
    ],
)
def test_a_clean_answer_stays(answer):
    assert clean_answer(answer) == answer
    assert clean_answer(f" \n{answer}\n\n") == answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param("a\tb \r\n", "a b", id="whitespace"),
        pytest.param("1. cat\n2. fur\n\n3) eye", "cat, fur, eye", id="numbered list"),
        pytest.param("- **cat**\n* fur,\n• eye", "cat, fur, eye", id="bullets"),
        pytest.param("A cat.\nIts fur", "A cat. Its fur", id="sentences"),
        pytest.param("c\x00a\u202et\x07\ufffd\ue000\ud800", "cat", id="control characters"),
        pytest.param("<think>\nhm\n</think>\n\ncat", "cat", id="thoughts"),
        pytest.param("hm</think>cat", "cat", id="thoughts opened by the template"),
        pytest.param("<think>hm", "", id="thoughts only"),
        pytest.param("cat<|im_end|><end_of_turn><turn|><eos>", "cat", id="markers"),
        pytest.param("cat, fur, Cat, fur", "cat, fur", id="said again"),
        pytest.param("red fur red fur red fur red", "red fur", id="loop of words"),
        pytest.param("cat, fur, " * 50 + "ca", "cat, fur", id="loop of items"),
        pytest.param("It is a cat. " * 9 + "It is", "It is a cat", id="loop of sentences"),
        pytest.param("红色的毛" * 30 + "红色", "红色的毛", id="loop without spaces"),
        pytest.param("cat!!!!!!!!!!!!", "cat!", id="loop of marks"),
        pytest.param("....", "", id="no word"),
        pytest.param("", "", id="nothing"),
        # Phrases about the two images are removed.
        ("The second image is a zoom-in of the first image, showing cat fur.", "cat fur."),
        ("In the second image, there is a cat's eye, and fur.", "there is a cat's eye, and fur."),
        ("The second image shows a leaf. The leaf is green.", "a leaf. The leaf is green."),
        ("The second image, a zoomed-in view of the first image, shows a cat", "a cat"),
        ("The fur in the second image is soft", "The fur is soft"),
        ("Zoom‑in: moss, ZOOM IN", "moss"),
        ("Both images show moss", "moss"),
        *((phrase, "") for phrase in EXCLUDED_PHRASES),
    ],
)
def test_clean_answer(answer, expected):
    assert clean_answer(answer) == expected
    assert clean_answer(expected) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("a cat, whisk", "a cat"),
        ("a cat with well-kno", "a cat with"),
        ("the cat's e", "the cat's"),
        ("the cat's", "the"),
        ("a cat ", "a cat"),
        ("a cat.", "a cat."),
        ("whisk", "whisk"),
        ("caf\ufffd", "caf"),
        ("红色的毛，白", "红色的毛，白"),
        ("红色\ufffd", "红色"),
        ("고양이 털", "고양이"),
        ("a cat, a dog, a cat, a d", "a cat, a dog"),
    ],
)
def test_an_answer_cut_by_the_limit_loses_its_last_word(answer, expected):
    assert clean_answer(answer, cut=True) == expected
