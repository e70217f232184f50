"""Metalink files, good and hostile."""

import pytest

from nbdserve.formats.metalink import MAX_SIZE, MetalinkError, parse_metalink

HASH = "ab" * 32
EXAMPLE = f"""<?xml version="1.0" encoding="UTF-8"?>
<metalink xmlns="urn:ietf:params:xml:ns:metalink">
  <published>2026-11-25T12:00:00Z</published>
  <file name="disk.xz">
    <size>1234</size>
    <hash type="sha-1">{"cd" * 20}</hash>
    <hash type="sha-256">{HASH.upper()}</hash>
    <pieces length="1024" type="sha-256"><hash>{"ef" * 32}</hash></pieces>
    <url priority="3">ftp://old.example/disk.xz</url>
    <url>https://last.example/disk.xz</url>
    <url priority="2" location="de"> https://two.example/disk.xz?a=1&amp;b=2 </url>
    <url priority="1">http://one.example/disk.xz</url>
    <metaurl mediatype="torrent">http://one.example/disk.torrent</metaurl>
  </file>
</metalink>"""


def test_a_file_has_size_hash_and_its_urls_best_first():
    file = parse_metalink(EXAMPLE.encode()).file(None)
    assert (file.name, file.size, file.sha256) == ("disk.xz", 1234, HASH)
    assert file.urls == (
        "http://one.example/disk.xz",
        "https://two.example/disk.xz?a=1&b=2",
        "https://last.example/disk.xz",
    )


def test_what_is_not_told_is_none():
    bare = '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a"/></metalink>'
    file = parse_metalink(bare.encode()).file("a")
    assert (file.size, file.sha256, file.urls) == (None, None, ())


def test_one_of_several_files_is_chosen_by_name():
    two = (
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink">'
        '<file name="a"><size>1</size></file><file name="b"/></metalink>'
    )
    link = parse_metalink(two.encode())
    assert link.file("a").size == 1
    assert link.file("b").size is None, "nothing of the one before"
    with pytest.raises(MetalinkError, match="several files: a, b"):
        link.file(None)
    with pytest.raises(MetalinkError, match="no file 'c', but: a, b"):
        link.file("c")


def bomb():
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
    return EXAMPLE.replace(
        "<metalink", f'<!DOCTYPE m [<!ENTITY e0 "lol">{entities}]><metalink', 1
    ).replace("disk.xz</url>", "&e9;</url>")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no XML"),
        ("<metalink", "no XML"),
        ("<html></html>", "begins with <html>"),
        ('<metalink version="3.0" xmlns="http://www.metalinker.org/"/>', "begins with <metalink>"),
        ('<metalink xmlns="urn:ietf:params:xml:ns:metalink"/>', "names no file"),
        (EXAMPLE.replace("1234", "-1"), "size of 'disk.xz' is '-1'"),
        (EXAMPLE.replace(HASH.upper(), "beef"), "sha-256 of 'disk.xz' is 'beef'"),
        (bomb(), "document type"),
        (
            EXAMPLE.replace(
                "<metalink", '<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]><metalink', 1
            ),
            "document type",
        ),
        (EXAMPLE + " " * MAX_SIZE, "longer than"),
    ],
)
def test_what_cannot_be_used_is_told(text, told):
    with pytest.raises(MetalinkError, match=told):
        parse_metalink(text.encode())
