"""Requirements of tests: a missing program skips its tests, or fails them where it is required."""

import pytest

from installed import need


@pytest.mark.parametrize("required", ["", "node", "postgresql"])
def test_what_is_missing_is_skipped(required: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELUGE_REQUIRE", required)
    with pytest.raises(pytest.skip.Exception, match="postgres is not installed: install it"):
        need("postgres", found=False, how="install it")


@pytest.mark.parametrize("required", ["postgres", "node,postgres", "node, postgres,redis"])
def test_what_is_required_fails(required: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELUGE_REQUIRE", required)
    with pytest.raises(pytest.fail.Exception, match="postgres is not installed: install it"):
        need("postgres", found=False, how="install it")
    need("postgres", found=True, how="install it")
