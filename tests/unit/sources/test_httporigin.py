"""Whom the http source asks, and what it tells them: redirects, credentials, proxies."""

import asyncio
import ssl

import pytest

from certificates import Authority
from httpsources import CONTENTS, SIZE
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.sources.http import HttpSource
from webserver import redirect, status, webserver

SECRET = "hidden"


async def test_redirects_are_followed_once_and_remembered(web, opened):
    web.script = [redirect("/target")]
    source = await opened("moved", forget=False)
    for at in (0, 1000, 2000):
        await source.read(at, 100)
    assert [asked.path for asked in web.asked] == ["/moved", *["/target"] * 4]


async def test_a_redirect_that_expired_is_resolved_again(web, opened):
    web.script = [redirect("/signed?old")]
    source = await opened("moved")
    web.script = [status("403 Expired"), redirect("/signed?new")]
    assert await source.read(0, 100) == CONTENTS[:100]
    assert [asked.path for asked in web.asked] == ["/signed?old", "/moved", "/signed?new"]


async def test_credentials_do_not_follow_a_redirect_to_another_origin(web, opened, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    async with webserver(CONTENTS) as other:
        web.script = [redirect(other.url("target"))]
        source = await opened(bearer_file=str(tmp_path / "token"), forget=False)
        await source.read(0, 100)
        assert web.asked[0].headers["authorization"] == "Bearer secret"
        assert all("authorization" not in asked.headers for asked in other.asked)


async def test_secrets_of_any_name_stay_with_their_origin(web, opened, tmp_path):
    (tmp_path / "headers").write_text("X-Token: secret\n")
    async with webserver(CONTENTS) as other:
        web.script = [redirect(other.url("target"))]
        source = await opened(header_file=str(tmp_path / "headers"), forget=False)
        await source.read(0, 100)
        assert web.asked[0].headers["x-token"] == "secret"
        assert len(other.asked) == 2
        assert all("x-token" not in asked.headers for asked in other.asked)


async def test_a_circle_of_redirects_is_an_error(web, opened):
    web.always = redirect("/round")
    with pytest.raises(DeviceError, match="in a circle"):
        await opened()
    assert len(web.asked) == 11


async def test_a_redirect_to_no_web_server_is_an_error(web, opened):
    web.script = [redirect("file:///etc/passwd")]
    with pytest.raises(DeviceError, match="redirected to 'file:///etc/passwd'"):
        await opened()


async def test_a_target_found_again_is_remembered_again(web, opened):
    web.script = [redirect("/signed?old")]
    source = await opened("moved")
    web.script = [status("403 Expired"), redirect("/signed?new")]
    for at in (0, 1000, 2000):
        assert await source.read(at, 100) == CONTENTS[at : at + 100]
    assert [asked.path for asked in web.asked][3:] == ["/signed?new"] * 2


async def test_credentials_come_from_files(web, opened, tmp_path):
    (tmp_path / "password").write_text("pass:word\n")
    (tmp_path / "headers").write_text("X-One: 1\n\nX-Two: 2\n")
    await opened(
        forget=False, user="me", password_file=str(tmp_path / "password"),
        header_file=str(tmp_path / "headers"), header="X-Three: 3",
    )  # fmt: skip
    asked = web.asked[0].headers
    assert asked["authorization"] == "Basic bWU6cGFzczp3b3Jk"
    assert (asked["x-one"], asked["x-two"], asked["x-three"]) == ("1", "2", "3")


async def test_credentials_in_the_url_are_sent_and_never_shown(web):
    url = web.url().replace("http://", "http://me:hidden@") + "?signature=hidden"
    source = HttpSource(HttpSource.Params(url=(url,)))
    web.script = [status("404 Not Found")]
    with pytest.raises(DeviceError) as caught:
        await source.open(read_only=True)
    assert web.asked[0].headers["authorization"] == "Basic bWU6aGlkZGVu"
    assert "hidden" not in str(caught.value)


async def test_a_proxy_is_taken_from_the_environment(web, opened, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url("").rstrip("/"))
    source = HttpSource(HttpSource.Params(url=("http://mirror.invalid/disk.img",)))
    await source.open(read_only=True)
    assert web.asked[0].path == "http://mirror.invalid/disk.img"
    await source.close()


async def test_a_proxy_gets_its_credentials_and_some_hosts_get_no_proxy(web, opened, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url("").rstrip("/").replace("http://", "http://me:pass@"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    await opened(forget=False)
    assert web.asked[0].path == "/disk.img"
    source = HttpSource(HttpSource.Params(url=("http://mirror.invalid/disk.img",)))
    await source.open(read_only=True)
    await source.close()
    assert web.asked[1].headers["proxy-authorization"] == "Basic bWU6cGFzcw=="


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "Proxy-Authorization"])
async def test_credentials_among_the_headers_stay_with_their_origin(web, opened, name):
    async with webserver(CONTENTS) as other:
        web.script = [redirect(other.url("target"))]
        await opened(header=f"{name}: secret", forget=False)
        assert web.asked[0].headers[name.lower()] == "secret"
        assert all(name.lower() not in asked.headers for asked in other.asked)


async def test_credentials_do_not_go_to_the_mirrors_of_a_metalink(web, make, tmp_path):
    (tmp_path / "disk.meta4").write_text(metalink(web.url()))
    await make(metalink=str(tmp_path / "disk.meta4"), header="Authorization: secret")
    assert "authorization" not in web.asked[0].headers


async def test_user_and_password_of_a_redirect_are_used_elsewhere_and_not_at_home(web, opened):
    async with webserver(CONTENTS) as other:
        web.script = [redirect(other.url().replace("http://", "http://a:b@"))]
        source = await opened()
        await source.read(0, 8)
        assert [asked.headers["authorization"] for asked in other.asked] == ["Basic YTpi"] * 2
    web.script = [redirect(web.url("target").replace("http://", "http://a:b@"))]
    await opened(header="Authorization: ours", forget=False)
    assert [asked.headers["authorization"] for asked in web.asked] == ["ours"] * 2


async def test_the_address_of_an_answer_that_is_no_http_is_not_told(web, opened):
    web.always = lambda *_: b"garbage\r\n\r\n"
    with pytest.raises(DeviceError, match="no HTTP answer") as caught:
        await opened(f"disk.img?signature={SECRET}", retry_for="0s")
    assert SECRET not in str(caught.value)


async def test_the_address_of_a_bad_redirect_is_not_told(web, opened):
    web.always = redirect(f"ftp://me:{SECRET}@host/disk?signature={SECRET}")
    with pytest.raises(DeviceError, match=r"redirected to 'ftp://host/disk\?…'"):
        await opened()


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://me:{SECRET}@host/disk",
        f"http://me:{SECRET}@host:99999/disk",
        f"http://me:{SECRET}/more@host/disk",
        f"http://me:{SECRET}@more@host:x/disk?{SECRET}",
    ],
)
def test_the_secrets_of_what_is_no_url_are_not_told(url):
    with pytest.raises(ConfigError, match=r"is no .*URL") as caught:
        HttpSource(HttpSource.Params(url=(url,)))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://x/y", "disk.img", "http://", "http://[::1/x"])
def test_what_is_no_url_is_told(url):
    with pytest.raises(ConfigError, match="URL"):
        HttpSource(HttpSource.Params(url=(url,)))


@pytest.mark.parametrize("key", ["bearer-file", "password-file", "header-file"])
@pytest.mark.parametrize(
    ("data", "told"), [(b"\xff\xfe\n", "no UTF-8"), (b"a\0b\n", "control|written"), (b"", "")]
)
async def test_a_file_that_holds_no_secret_is_told(opened, tmp_path, key, data, told):
    (tmp_path / "secret").write_bytes(data)
    if key == "header-file" and not data:
        return  # no headers are none
    with pytest.raises((DeviceError, ConfigError), match=told or "is empty"):
        await opened(**{key: str(tmp_path / "secret")})


async def test_an_empty_first_line_is_no_secret(opened, tmp_path):
    (tmp_path / "token").write_text("\nsecret\n")
    with pytest.raises(DeviceError, match="first line is empty"):
        await opened(bearer_file=str(tmp_path / "token"))


async def test_the_remedy_for_an_unknown_certificate_is_told(make, tmp_path):
    held = Authority(tmp_path / "ca").issue(tmp_path / "server", "server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(held / "server-cert.pem", held / "server-key.pem")
    async with webserver(CONTENTS, tls=context) as web:
        with pytest.raises(DeviceError, match=r"certificate of .* is refused.*cafile="):
            await make(web.url())
        source = await make(web.url(), cafile=str(held / "ca-cert.pem"))
        assert await source.read(0, 8) == CONTENTS[:8]


async def test_a_proxy_without_a_scheme_is_one_of_http(web, make, monkeypatch):
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{web.port}")
    await make("http://mirror.invalid/disk.img")
    assert web.asked[0].path == "http://mirror.invalid/disk.img"


async def test_a_proxy_that_cannot_be_used_is_told_without_its_password(make, monkeypatch):
    monkeypatch.setenv("http_proxy", f"socks5://me:{SECRET}@127.0.0.1:1")
    with pytest.raises(DeviceError, match=r"http_proxy=socks5://127\.0\.0\.1:1 is no http"):
        await make("http://mirror.invalid/disk.img")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_a_password_is_told_at_once(web, make, monkeypatch, scheme):
    web.always = status("407 Proxy Authentication Required")
    proxy = web.url("").rstrip("/").replace("http://", f"http://me:{SECRET}@")
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    with pytest.raises(DeviceError, match=f"407 Proxy Auth.*{scheme}_proxy=") as caught:
        await make(f"{scheme}://mirror.invalid/disk.img?signature={SECRET}")
    assert SECRET not in str(caught.value)


def metalink(*urls, size=SIZE):
    named = "".join(f"<url>{url}</url>" for url in urls)
    return (
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="disk">'
        f"<size>{size}</size>{named}</file></metalink>"
    )


async def test_a_url_of_a_metalink_that_is_none_is_left_out(web, make, tmp_path, caplog):
    (tmp_path / "disk.meta4").write_text(metalink("http://bad:99999/", web.url()))
    source = await make(metalink=str(tmp_path / "disk.meta4"))
    assert await source.read(0, 8) == CONTENTS[:8]
    assert "it is left out" in caplog.text


@pytest.mark.parametrize("length", ["300000", ""])
async def test_the_size_in_a_metalink_holds_for_a_server_without_ranges(
    web, make, tmp_path, length
):
    web.always = lambda server, _: server.head("200 OK", 0, Content_Length=length) + CONTENTS
    (tmp_path / "disk.meta4").write_text(metalink(web.url(), size=999_999))
    with pytest.raises(DeviceError, match="300000 bytes, the metalink says 999999"):
        await make(metalink=str(tmp_path / "disk.meta4"))


async def test_a_metalink_that_trickles_in_is_given_up_at_the_deadline(web, make):
    async def trickle(server, _):
        yield server.head("200 OK", 100_000)
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    web.always = trickle
    with pytest.raises(DeviceError, match=r"not all came within deadline=0\.3s"):
        await make(metalink=web.url("disk.meta4"), deadline="300ms")
