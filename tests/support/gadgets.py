"""Hostile pickles, for tests: unpickled by pickle itself, each makes the file ``marker``.

That is all that any of them can do.
"""

import base64
import io
import marshal
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""torch/serialization.py: the first pickle of a file in torch's old format."""


class Named:
    """What a pickle names; dots lead into classes."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Call:
    """A call that unpickling makes, of what is named or of what other calls give."""

    def __init__(self, function: "str | Named | Call", *args: object):
        self.function = Named(*function.split(":")) if isinstance(function, str) else function
        self.args = args


def opcodes(value: object) -> bytes:
    """What leaves a value, or the result of a call, on the stack."""
    if isinstance(value, Named):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        return opcodes(value.function) + opcodes(value.args) + b"R"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    return pickle.dumps(value, 2)[2:-1]


def pickled(value: object) -> bytes:
    return b"\x80\x04" + opcodes(value) + b"."


def method(of: object, name: str) -> Call:
    return Call("builtins:getattr", of, name)


def calls(marker: Path) -> dict[str, Call]:
    """A call of each known family."""
    path = str(marker)
    shell = f'echo ran > "{path}"'
    source = f"open({path!r}, 'w')"
    loaded = Call("marshal:loads", marshal.dumps(compile(source, "gadget", "exec")))
    compiled = Call("builtins:compile", source, "gadget", "exec")
    integer = Named("builtins", "int")
    made = Call("os:mkdir", path)
    touch = Call("pathlib:Path", path)
    module = Call("importlib:import_module", "os")
    browser = Call("webbrowser:GenericBrowser", ["touch", path])
    process = Call("multiprocessing:Process", None, Named("os", "mkdir"), None, (path,))
    interpreter = Call("code:InteractiveInterpreter")
    inner = pickled(Call("os:system", shell))
    return {
        "os.system": Call("os:system", shell),
        "posix.system": Call("posix:system", shell),
        "os.popen": Call("os:popen", shell),
        "os.spawnlp": Call("os:spawnlp", 0, "touch", "touch", path),
        "os.execlp": Call("os:execlp", "touch", "touch", path),
        "os.posix_spawnp": Call("os:posix_spawnp", "touch", ["touch", path], {}),
        "os.open": Call("os:open", path, 0o101),
        "os.mkdir": made,
        "subprocess.Popen": Call("subprocess:Popen", ["touch", path]),
        "subprocess.check_output": Call("subprocess:check_output", ["touch", path]),
        "subprocess.getoutput": Call("subprocess:getoutput", shell),
        "pty.spawn": Call("pty:spawn", ["touch", path]),
        "multiprocessing.util": Call(
            "multiprocessing.util:spawnv_passfds", b"/bin/sh", ["sh", "-c", shell], ()
        ),
        "multiprocessing.Process": Call("multiprocessing:Process.run", process),
        "webbrowser": Call("webbrowser:GenericBrowser.open", browser, ""),
        "eval": Call("builtins:eval", source),
        "exec": Call("builtins:exec", source),
        "compile": Call("builtins:exec", compiled),
        "open": Call("builtins:open", path, "w"),
        "io.open": Call("io:open", path, "w"),
        "_io.FileIO": Call("_io:FileIO", path, "w"),
        "codecs.open": Call("codecs:open", path, "w"),
        "codecs.decode": Call(
            "builtins:exec", Call("codecs:decode", base64.b64encode(source.encode()), "base64")
        ),
        "__import__": Call(method(Call("builtins:__import__", "os"), "system"), shell),
        "getattr chain": Call(method(method(Named("pathlib", "Path"), "mkdir"), "__call__"), touch),
        "dotted name": Call("pathlib:os.system", shell),
        "importlib": Call(method(module, "system"), shell),
        "runpy": Call("runpy:_run_code", compiled, {}),
        "pathlib.touch": Call("pathlib:Path.touch", touch),
        "pathlib.write_text": Call("pathlib:Path.write_text", touch, "ran"),
        "operator.methodcaller": Call(Call("operator:methodcaller", "touch"), touch),
        "operator.attrgetter": Call(Call(Call("operator:attrgetter", "system"), module), shell),
        "functools.partial": Call(Call("functools:partial", Named("os", "system"), shell)),
        "functools.reduce": Call("functools:reduce", Named("os", "mkdir"), [path, 511]),
        "map": Call("builtins:list", Call("builtins:map", Named("os", "system"), [shell])),
        "marshal": Call("builtins:exec", loaded),
        "types.FunctionType": Call(Call("types:FunctionType", loaded, {})),
        "types.CodeType": Call("builtins:exec", Call("types:CodeType.replace", compiled)),
        "copyreg._reconstructor": Call("copyreg:_reconstructor", integer, integer, made),
        "timeit": Call("timeit:timeit", source, "pass", Named("time", "time"), 1),
        "cProfile": Call("cProfile:run", source),
        "bdb": Call("bdb:Bdb.run", Call("bdb:Bdb"), source),
        "code": Call("code:InteractiveInterpreter.runsource", interpreter, source),
        "pickle": Call("pickle:loads", inner),
        "shutil": Call("shutil:copyfile", __file__, path),
        "sqlite3": Call(
            "sqlite3:Connection.execute", Call("sqlite3:connect", path), "create table t (x)"
        ),
        "logging": Call("logging:FileHandler", path),
        "ctypes": Call(method(Call("ctypes:CDLL", None), "system"), shell.encode()),
        "numpy.tofile": Call("numpy:ndarray.tofile", Call("numpy:zeros", 1), path),
        "numpy objects": Call("numpy:load", Call("io:BytesIO", npy(inner)), None, True),
        "torch.save": Call("torch:save", 1, path),
        "torch.storage": Call("torch.storage:_load_from_bytes", legacy(inner)),
        "torch.serialization": Call(
            "torch.serialization:_legacy_load",
            Call("io:BytesIO", legacy(inner)),
            None,
            Call("importlib:import_module", "pickle"),
        ),
        "torch._C": Call("torch._C:_log_api_usage_once", made),
        "torch.fx": Call("torch.fx.graph_module:_exec_with_source", source, {}),
        "torch.utils": Call("torch.utils.collect_env:run", shell),
    }


def npy(content: bytes) -> bytes:
    """A file of numpy's with one object, which is a pickle."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def legacy(content: bytes) -> bytes:
    """A pickle in torch's format before 1.6."""
    parts = [LEGACY_MAGIC, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(part, 2) for part in parts) + content + pickle.dumps([], 2)


def archive(**members: bytes) -> bytes:
    """A zip archive, as torch writes since 1.6; a member's name has _ for the dot."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name, content in {"version": b"3", "byteorder": b"little", **members}.items():
            zipped.writestr(f"archive/{name.replace('_', '.')}", content)
    return file.getvalue()


def tar(content: bytes) -> bytes:
    """As torch wrote in 2016."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tarred:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tarred.addfile(member, io.BytesIO(content))
    return file.getvalue()


def wrappings(marker: Path) -> dict[str, bytes]:
    """One call in every format and by every opcode that makes one."""
    shell = f'echo ran > "{marker}"'
    call = Call("os:system", shell)
    line, body = shell.encode(), opcodes(call)
    plain = pickled(call)
    system = Named("os", "system")
    return {
        "protocol 0": b"cos\nsystem\n(V" + line + b"\ntR.",
        "protocol 1": b"(cos\nsystem\n(V" + line + b"\ntRl.",
        "protocol 5": b"\x80\x05" + body + b".",
        "protocol 255": b"\x80\xff" + body + b".",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93(V" + line + b"\ntR.",
        "frame": b"\x80\x04\x95" + struct.pack("<Q", len(body) + 1) + body + b".",
        "frame that lies": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + body + b".",
        "INST": b"\x80\x02(V" + line + b"\nios\nsystem\n.",
        "OBJ": b"\x80\x02(cos\nsystem\nV" + line + b"\no.",
        "NEWOBJ": b"\x80\x02c_io\nFileIO\n(V" + str(marker).encode() + b"\nVw\nt\x81.",
        "NEWOBJ_EX": b"\x80\x04" + opcodes((Named("_io", "FileIO"),))[1:-1]
        + opcodes((str(marker), "w")) + b"}\x92.",
        "BUILD": b"\x80\x02ccollections\nOrderedDict\n)R" + body + b"b.",
        "memo": b"\x80\x02" + opcodes(system) + b"q\x000h\x00(V" + line + b"\ntR.",
        "persistent id": b"\x80\x02" + body + b"Q.",
        "storage": b"\x80\x02" + opcodes(("storage", system, "0", "cpu", call)) + b"Q.",
        "extension": b"\x80\x02(" + opcodes(Call("copyreg:add_extension", "os", "system", 1))
        + b"\x82\x01(V" + line + b"\ntRt.",
        "key of a dict": b"\x80\x02}(" + body + b"K\x01u.",
        "set": b"\x80\x04\x8f(" + body + b"\x90.",
        "after the weights": b"\x80\x02}." + plain,
        "legacy torch": legacy(plain),
        "legacy magic": pickle.dumps(LEGACY_MAGIC, 2) + plain,
        "legacy system": pickle.dumps(LEGACY_MAGIC, 2) + pickle.dumps(1001, 2) + plain,
        "torch": archive(data_pkl=plain),
        "TorchScript": archive(constants_pkl=plain, data_pkl=plain),
        "torch in torch": archive(data_pkl=archive(data_pkl=plain)),
        "torch's storage": archive(data_pkl=pickle.dumps({}, 2), data=plain),
        "tar": tar(plain),
        "zip": archive(model_pkl=plain),
        "npy": npy(plain),
    }  # fmt: skip


def hostile_pickles(marker: Path) -> dict[str, bytes]:
    """All of the above, by family."""
    return {name: pickled(call) for name, call in calls(marker).items()} | wrappings(marker)
