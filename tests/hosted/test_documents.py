"""Manifests as they come: read, bounded, found, edited, and given back as they were."""

import time
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from backstay.errors import BackstayError, FormatError, RefusedError
from backstay.kinds.hosted.manifests import manifest_text
from backstay.kinds.hosted.manifests.documents import parse_documents
from kit.fixtures import FOLDER

FILES = sorted((FOLDER / "hosted").glob("*.yaml"))
HOSTED_CLUSTER = """\
apiVersion: hypershift.openshift.io/v1beta1
kind: HostedCluster
metadata:
  name: blue
  namespace: clusters
spec: {}
"""
SECRET = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  namespace: clusters\n"
ADDED = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "new", "namespace": "clusters"}}


def objects(text: str) -> list:
    return [it for it in YAML(typ="safe", pure=True).load_all(text) if it is not None]


# --- what was not edited


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_not_edited_comes_out_byte_for_byte(path):
    text = path.read_text()
    assert parse_documents(text.encode(), "it").render() == text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_tools_write_comes_out_byte_for_byte_even_where_it_is_written_anew(path):
    text = path.read_text()
    documents = parse_documents(text, "it")
    for manifest in documents.manifests:
        documents.edit(manifest)
    assert documents.render() == text


@pytest.mark.parametrize(
    "odd",
    [
        "# only a comment\n---\n",
        "---\n---\n...\n---\n",
        "\n\n# a comment\n\n",
        "apiVersion: v1\nkind:   ConfigMap  # spaces\ndata: {a: ~, b: , 'c': \"\\x41\"}\n---\n",
        "--- # about it\nkind: A\n...\n# after\n---\n",
        "--- {kind: A, x: [1, 2]}\n---\n",
        "kind: A\nfolded: a\n  b\n   c\n---\n",
        "kind: A\ntime: 2026-01-02 03:04:05\nnumbers: [012, 0x1F, 1_000, 1e3, .5, yes]\n---\n",
        "---\r\nkind: A\r\nx: y\r\n---\r\n",
    ],
)
def test_odd_neighbours_of_an_edited_cluster_stay_as_they_are(odd):
    documents = parse_documents(odd + HOSTED_CLUSTER, "it")
    documents.edit(documents.hosted_cluster)["spec"]["x"] = 1
    rendered = documents.render()
    assert rendered.startswith(odd)
    assert rendered.endswith(("spec:\n  x: 1\n", "spec: {x: 1}\n"))


def test_comments_order_and_quotes_of_an_edited_document_stay():
    text = HOSTED_CLUSTER.replace(
        "spec: {}\n",
        "spec:\n  # before\n  z: 'single'   # beside\n"
        '  a: "double"\n\n  when: 2026-01-02T03:04:05Z\n'
        "  day: 2026-01-02\n  numbers: [+5, -0, 1.50, 1E3, 5.960464477539063e-08, .inf]\n"
        "  old: null\n  list:\n  # in it\n  - 1\n  - b: |\n      text\n       more\n    c: >-\n"
        "      folded\n      text\n  octal: 012\n  yes: no\n# at the end\n",
    )
    documents = parse_documents(f"# head\n---\n{text}...\n# after\n", "it")
    documents.edit(documents.hosted_cluster)["metadata"]["name"] = "red"
    assert documents.render() == f"# head\n---\n{text}...\n# after\n".replace("blue", "red")


def test_line_ends_of_another_system_stay():
    text = f"---\n{HOSTED_CLUSTER}".replace("\n", "\r\n")
    documents = parse_documents(text, "it")
    documents.edit(documents.hosted_cluster)["metadata"]["name"] = "red"
    assert documents.render() == text.replace("blue", "red")


def test_a_new_field_does_not_take_the_comment_of_the_next_block():
    text = HOSTED_CLUSTER.replace(
        "spec: {}\n", "spec:\n  a: 1\n  c: 3\n# about status\nstatus: {}\n"
    )
    documents = parse_documents(text, "it")
    spec = documents.edit(documents.hosted_cluster)["spec"]
    for name in ("b", "z"):
        manifest_text.put(spec, name, 2)
    assert "  b: 2\n  z: 2\n  c: 3\n# about status\nstatus" in documents.render()


# --- finding


def test_objects_are_found_with_their_names():
    documents = parse_documents(
        (FOLDER / "hosted" / "aws-render-sensitive.yaml").read_bytes(), "it"
    )
    assert documents.hosted_cluster.title == "HostedCluster clusters/blue"
    assert [pool.name for pool in documents.node_pools] == ["blue-eu-west-1a"]
    names = ["blue-pull-secret", "blue-ssh-key", "blue-etcd-encryption-key"]
    assert [secret.name for secret in documents.secrets] == names
    found = documents.secret("clusters", "blue-ssh-key")
    assert found is not None
    assert found.value["data"] == {"id_rsa.pub": "c3NoLWVkMjU1MTkgQUFBQQ=="}
    assert documents.secret("other", "blue-ssh-key") is None
    assert documents.secret("clusters", "blue") is None


def test_objects_of_a_list_are_found_and_can_be_edited_and_added():
    documents = parse_documents((FOLDER / "hosted" / "saved-list.yaml").read_text(), "it")
    assert documents.hosted_cluster.name == "prod.eu"
    assert [pool.name for pool in documents.node_pools] == ["prod"]
    documents.edit(documents.secrets[0])["metadata"]["name"] = "changed"
    documents.add(ADDED)
    (found,) = objects(documents.render())
    assert [item["metadata"]["name"] for item in found["items"]] == [
        "new",
        "prod.eu",
        "changed",
        "prod",
    ]


def test_objects_of_other_groups_are_not_taken_for_ours():
    other = HOSTED_CLUSTER.replace("hypershift.openshift.io", "example.com")
    documents = parse_documents(f"{other}---\n{HOSTED_CLUSTER}", "it")
    assert documents.hosted_cluster.group == "hypershift.openshift.io/v1beta1"
    assert (
        parse_documents(f"{SECRET.replace('v1', 'other/v1')}---\n{HOSTED_CLUSTER}", "it").secrets
        == ()
    )


def test_one_hosted_cluster_it_must_be():
    with pytest.raises(RefusedError, match="no HostedCluster"):
        parse_documents(SECRET, "rendered.yaml")
    with pytest.raises(RefusedError, match=r"rendered\.yaml has no HostedCluster"):
        parse_documents("", "rendered.yaml")
    with pytest.raises(RefusedError, match="2 HostedClusters"):
        parse_documents(f"{HOSTED_CLUSTER}---\n{HOSTED_CLUSTER.replace('blue', 'red')}", "it")
    as_list = "".join(f"  {line}\n" for line in HOSTED_CLUSTER.splitlines())
    items = f"apiVersion: v1\nkind: List\nitems:\n-{as_list[1:]}-{as_list[1:]}"
    with pytest.raises(RefusedError, match="2 HostedClusters"):
        parse_documents(items, "it")


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ("  name: blue\n", "", "no name"),
        ("name: blue", "name: ../blue", "no name"),
        ("name: blue", "name: [blue]", "no name"),
        ("  namespace: clusters\n", "", "namespace"),
        ("spec: {}\n", "", "no spec"),
        ("spec: {}\n", "spec: [1]\n", "no spec"),
        ("v1beta1", "v1alpha1", "v1beta1"),
    ],
)
def test_a_hosted_cluster_that_is_no_whole_one_is_refused(before, after, word):
    with pytest.raises(FormatError, match=word):
        parse_documents(HOSTED_CLUSTER.replace(before, after), "it")


def test_one_secret_twice_is_refused():
    with pytest.raises(FormatError, match="twice"):
        parse_documents(f"{SECRET}---\n{SECRET}---\n{HOSTED_CLUSTER}", "it")


# --- adding


@pytest.mark.parametrize(
    "head",
    [
        "",
        "---\n",
        "# c\n",
        "# c\n---\n",
        "--- # c\n",
        f"{SECRET}---\n",
        f"{SECRET}...\n---\n",
        "--- ",
    ],
)
@pytest.mark.parametrize("edit", [False, True])
def test_an_object_is_added_right_before_the_cluster(head, edit):
    cluster = HOSTED_CLUSTER if head != "--- " else f"{objects(HOSTED_CLUSTER)[0]}\n"
    documents = parse_documents(head + cluster, "it")
    if edit:
        documents.edit(documents.hosted_cluster)
    before = objects(head + cluster)
    documents.add(ADDED)
    rendered = documents.render()
    assert objects(rendered) == [*before[:-1], ADDED, before[-1]]
    assert rendered.count("# c") == head.count("# c")
    assert parse_documents(rendered, "it").render() == rendered


def test_edits_of_a_copy_are_its_own():
    documents = parse_documents(HOSTED_CLUSTER, "it")
    other = documents.copy()
    other.edit(other.hosted_cluster)["spec"]["x"] = 1
    assert documents.render() == HOSTED_CLUSTER
    assert other.hosted_cluster.value["spec"] == {"x": 1}


# --- what is hostile, or no manifest


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("2026-11-20T10:00:00Z INFO rendering\n" + HOSTED_CLUSTER, "line 2"),
        ("just words\n---\n" + HOSTED_CLUSTER, "line 1 is no object"),
        ("- 1\n---\n" + HOSTED_CLUSTER, "line 1 is no object"),
        (HOSTED_CLUSTER + "a: &x 1\n", "anchors"),
        (HOSTED_CLUSTER + "a: &x [1]\nb: *x\n", "anchors"),
        (HOSTED_CLUSTER + "a: !!python/object/apply:os.system [id]\n", "tags"),
        (HOSTED_CLUSTER + "a: !!binary aGk=\n", "tags"),
        (HOSTED_CLUSTER + "a: !mine x\n", "tags"),
        (HOSTED_CLUSTER + "<<: {a: 1}\n", "merges"),
        (HOSTED_CLUSTER + "? [a]\n: 1\n", "no text"),
        ("%YAML 1.1\n---\n" + HOSTED_CLUSTER, "directives"),
        ("%TAG ! tag:x,2026:\n---\n" + HOSTED_CLUSTER, "directives"),
        (HOSTED_CLUSTER + "kind: Other\n", "no YAML"),
        (HOSTED_CLUSTER + "metadata: {name: 'a'}\n", "no YAML"),
        (HOSTED_CLUSTER + "a: {b: 1, b: 2}\n", "no YAML"),
        (HOSTED_CLUSTER + "a: 'open\n", "no YAML"),
        (HOSTED_CLUSTER + "\ta: 1\n", "no YAML"),
        (HOSTED_CLUSTER + 'a: "\\ud83d"\n', "half a character"),
        (HOSTED_CLUSTER + "a: \x00\n", "no YAML"),
        (HOSTED_CLUSTER + f"a: {'9' * 5000}\n", "no YAML"),
        (HOSTED_CLUSTER.encode() + b"a: \xff\n", "UTF-8"),
        (HOSTED_CLUSTER + f"a: {'[' * 70}{']' * 70}\n", "deeply"),
        (HOSTED_CLUSTER + "---\n" * 2001, "documents"),
        (f"{HOSTED_CLUSTER}a: [{'1,' * 50_001}]\n", "too many"),
    ],
    ids=range(24),
)
def test_what_manifests_do_not_have_is_refused(text, word):
    with pytest.raises(FormatError, match=word) as caught:
        parse_documents(text, "it")
    assert caught.value.__context__ is None
    assert "os.system" not in str(caught.value)


def test_too_much_is_refused_before_it_is_looked_at():
    with pytest.raises(FormatError, match="16 MiB"):
        parse_documents(b"[" * ((16 << 20) + 1), "it")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{" * 100_000,
        "- " * 100_000,
        "[\n" * 100_000,
        "? " * 100_000,
        "{a: " * 50_000,
    ],
    ids=["lists", "maps", "dashes", "lines", "questions", "nested"],
)
def test_brackets_without_end_are_refused_soon(text):
    began = time.monotonic()
    with pytest.raises(FormatError):
        parse_documents(text, "it")
    # Without the bound it takes minutes.
    assert time.monotonic() - began < 30


def test_promise_5_no_message_and_no_repr_quotes_the_text():
    secret = "aV7ery0SecretKey"
    documents = parse_documents(f"{SECRET}data:\n  key: {secret}\n---\n{HOSTED_CLUSTER}", "it")
    assert secret not in repr(documents) + repr(documents.secrets) + repr(documents.manifests)
    assert secret not in repr(documents._parts)
    for broken in (f"key: {secret}\nkey: {secret}\n", f"{secret}\n: : {secret}", f"a: '{secret}"):
        with pytest.raises(FormatError) as caught:
            parse_documents(broken + "\n---\n" + HOSTED_CLUSTER, "it")
        error = caught.value
        assert secret not in str(error)
        assert error.__context__ is None
        assert error.__cause__ is None


def test_a_large_but_honest_file_is_read():
    pools = "".join(
        f"---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: n{n}\ndata:\n  x: |\n"
        + "    some lines of text {[]}\n" * 200
        for n in range(100)
    )
    text = f"{pools}---\n{HOSTED_CLUSTER}"
    assert len(text) > 500_000
    documents = parse_documents(text, "it")
    assert len(documents.manifests) == 101
    assert documents.render() == text


# --- any manifests

_TEXTS = st.text(
    alphabet=st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufeff\x85"),
    max_size=12,
) | st.sampled_from(
    [
        "",
        "null",
        "yes",
        "012",
        "1e3",
        "0x1F",
        "~",
        "2026-01-02",
        "a: b",
        "# c",
        "- x",
        "{",
        "'",
        '"',
    ]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | _TEXTS
    | st.lists(st.sampled_from(["a", "bc", " d", ""]), min_size=1, max_size=4).map(
        lambda lines: LiteralScalarString("\n".join(lines))
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(_TEXTS, _VALUES, max_size=4), max_size=3), st.data())
def test_any_documents_come_out_as_they_went_in_and_mean_the_same_when_written_anew(made, data):
    out = StringIO()
    writer = YAML(typ="rt", pure=True)
    writer.explicit_start = True
    for document in made:
        # Not what the reader would refuse, or take for more manifests.
        document.pop("<<", None)
        document.pop("kind", None)
        writer.dump(document, out)
    text = f"{out.getvalue()}---\n{HOSTED_CLUSTER}"
    try:
        documents = parse_documents(text, "it")
    except FormatError:
        assert "<<" in text or "&" in text or "*" in text
        return
    assert documents.render() == text
    meant = objects(text)
    chosen = data.draw(st.sets(st.sampled_from(range(len(documents.manifests)))))
    for index in chosen:
        documents.edit(documents.manifests[index])
    assert objects(documents.render()) == meant
    assert documents.copy().render() == documents.render()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *"[]{}#'\"|>%\t\r\u2028é\\\n",
                *("a", ": ", "- ", "  ", "---\n", "...\n", "&x ", "*x ", "!!", "? ", "<<"),
                HOSTED_CLUSTER,
            ]
        ),
        max_size=30,
    ).map("".join)
)
def test_no_text_raises_anything_but_our_own_errors(text):
    try:
        documents = parse_documents(text, "it")
    except BackstayError:
        return
    assert documents.render() == text
    documents.add(ADDED)
    again = parse_documents(documents.render(), "it")
    assert again.secret("clusters", "new") is not None
