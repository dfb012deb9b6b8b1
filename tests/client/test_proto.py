"""The committed messages are those of rpc.proto, and load on every protobuf that we allow."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from backstay.client.proto import rpc_pb2

ROOT = Path(__file__).parents[2]
PROTO = "backstay/client/proto/rpc.proto"


def test_generated_messages_are_those_of_the_proto_file(tmp_path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    out = tmp_path / "set"
    subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc"),
            *("--proto_path", ROOT / "src", f"--descriptor_set_out={out}", PROTO),
        ],
        cwd=ROOT / "src",
        check=True,
    )
    (wanted,) = FileDescriptorSet.FromString(out.read_bytes()).file
    committed = FileDescriptorProto()
    rpc_pb2.DESCRIPTOR.CopyToProto(committed)
    for message in _messages(wanted.message_type):
        for field in message.field:
            field.ClearField("json_name")
    assert committed == wanted
    typed = (ROOT / "src/backstay/client/proto/rpc_pb2.pyi").read_text()
    for message in _messages(wanted.message_type):
        assert f"class {message.name}(" in typed
        for field in message.field:
            assert f"{field.name.upper()}_FIELD_NUMBER" in typed


def _messages(top):
    for message in top:
        yield message
        yield from _messages(message.nested_type)


def test_generated_code_is_not_newer_than_the_oldest_protobuf_that_is_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (allowed,) = (d for d in project["dependencies"] if d.startswith("protobuf"))
    floor = tuple(map(int, re.search(r">=([\d.]+)", allowed)[1].split(".")))
    text = (ROOT / "src/backstay/client/proto/rpc_pb2.py").read_text()
    made_by = re.search(r"Protobuf Python Version: (\d+)\.(\d+)", text)
    assert (int(made_by[1]), int(made_by[2])) <= floor
