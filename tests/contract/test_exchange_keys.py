"""What a key may do, as the exchange tells unmodified ccxt, and which keys never go live."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cluster.stages.exchange import RunningExchange
from observability.errors import ExchangeError, SettingsError
from tests.contract.sandbox_kit import exchange_in
from trading.adapters.api_key import ApiKey, read_key
from trading.adapters.bot_spec import BotSpec
from trading.adapters.key_rights import KeyRights, check_keys, key_rights
from trading.adapters.sandbox import private
from trading.adapters.sandbox.client import ccxt_urls
from trading.adapters.sandbox.config import AccountConfig, SandboxConfig
from trading.adapters.sandbox.endpoint import Call
from trading.adapters.sandbox.venue import open_venue


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    with exchange_in(tmp_path_factory.mktemp("keys"), "alice", "bob", trading_days=1.0) as running:
        yield running


def _spec(name: str, key_file: Path, pair: str = "BTC/USDT") -> BotSpec:
    return BotSpec(
        name=name, strategy="swing", account=f"binance-{name}", venue="binance", mode="live", pairs=(pair,),
        timeframe="15m", folder=str(key_file.parent / name), key_file=str(key_file),
    )  # fmt: skip


def test_each_account_has_a_number_and_its_key_may_trade_and_no_more(exchange: RunningExchange) -> None:
    found = [key_rights(read_key(path), ccxt_urls(exchange.url)) for path in exchange.key_files.values()]
    assert len({rights.account for rights in found}) == 2
    assert [replace(rights, account="") for rights in found] == 2 * [KeyRights("", False, True, True)]
    with pytest.raises(ExchangeError, match="AuthenticationError"):
        key_rights(ApiKey("K" * 64, "S" * 64), ccxt_urls(exchange.url))


def test_two_bots_never_go_live_on_one_account(exchange: RunningExchange, tmp_path: Path) -> None:
    ask = partial(key_rights, urls=ccxt_urls(exchange.url))
    alice, bob = exchange.key_files["alice"], exchange.key_files["bob"]
    check_keys([_spec("swing", alice), _spec("scalp", bob)], ask)
    twin = tmp_path / "twin.json"  # another key of the account, as far as files can tell
    twin.write_bytes(alice.read_bytes())
    twin.chmod(0o600)
    with pytest.raises(SettingsError, match="swing and scalp have keys of one account"):
        check_keys([_spec("swing", alice), _spec("scalp", twin)], ask)


def test_a_key_that_may_withdraw_or_may_not_trade_never_goes_live(exchange: RunningExchange) -> None:
    path = exchange.key_files["alice"]
    with pytest.raises(SettingsError, match="may withdraw"):
        check_keys([_spec("swing", path)], lambda _: KeyRights("1", True, True, True))
    with pytest.raises(SettingsError, match="may not trade futures"):
        check_keys([_spec("swing", path, "BTC/USDT:USDT")], lambda _: KeyRights("1", False, True, False))
    with pytest.raises(SettingsError, match="may not trade spot"):
        check_keys([_spec("swing", path)], lambda _: KeyRights("1", False, False, True))


def test_an_account_can_be_opened_whose_key_says_that_it_may_withdraw(exchange: RunningExchange) -> None:
    wide = AccountConfig(name="wide", key_file=exchange.key_files["bob"], balances={}, withdrawals=True)
    assert private.key_rights(open_venue(SandboxConfig(accounts=(wide,))), Call({}, "wide"))["enableWithdrawals"]
