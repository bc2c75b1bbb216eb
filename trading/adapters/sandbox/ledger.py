"""Who owns what, in integer units of 10^-8: every movement takes from one account what it gives to another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

FEES = "#fees"
MARKET_MAKER = "#market-maker"
INSURANCE = "#insurance"
"""The accounts of the house. The last two may be negative: one sells what it does not have, one pays for the ruined."""


@dataclass(slots=True)
class Balance:
    """Units of one asset in one account."""

    free: int = 0
    locked: int = 0

    @property
    def total(self) -> int:
        """Free and locked."""
        return self.free + self.locked


@dataclass
class Ledger:
    """Balances of all accounts. `initial` never changes after `open_account`."""

    initial: dict[str, dict[str, int]] = field(default_factory=dict)
    _balances: dict[str, defaultdict[str, Balance]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for house in (FEES, MARKET_MAKER, INSURANCE):
            self.open_account(house, {})

    def open_account(self, name: str, initial: Mapping[str, int]) -> None:
        """Create an account with its initial units per asset; raises ValueError for a name in use or a negative sum."""
        if name in self._balances or min(initial.values(), default=0) < 0:
            raise ValueError(f"account {name!r} exists or starts below zero")
        self.initial[name] = dict(initial)
        self._balances[name] = defaultdict(Balance, {asset: Balance(units) for asset, units in initial.items()})

    def balance(self, account: str, asset: str) -> Balance:
        """A copy of one balance."""
        held = self._balances[account].get(asset, Balance())
        return Balance(held.free, held.locked)

    def balances(self, account: str) -> dict[str, Balance]:
        """Copies of all balances of an account."""
        return {asset: Balance(held.free, held.locked) for asset, held in sorted(self._balances[account].items())}

    def accounts(self) -> Iterator[str]:
        """Names of the traders' accounts."""
        return (name for name in self._balances if not name.startswith("#"))

    def lock(self, account: str, asset: str, units: int) -> bool:
        """Set free units aside for an order; False, changing nothing, when there are too few."""
        if units < 0 or self.balance(account, asset).free < units:
            return False
        held = self._balances[account][asset]
        held.free -= units
        held.locked += units
        return True

    def unlock(self, account: str, asset: str, units: int) -> None:
        """Give units that were set aside back to the free ones."""
        held = self._balances[account][asset]
        if not 0 <= units <= held.locked:
            raise ValueError(f"{account} has {held.locked} locked {asset}, cannot unlock {units}")
        held.locked -= units
        held.free += units

    def pay_locked(self, payer: str, payee: str, asset: str, units: int) -> None:
        """Move locked units of the payer to the free ones of the payee."""
        self.unlock(payer, asset, units)
        self.pay(payer, payee, asset, units)

    def pay(self, payer: str, payee: str, asset: str, units: int) -> None:
        """Move free units; only the market maker and the insurance may go below zero."""
        source = self._balances[payer][asset]
        if units < 0 or (source.free < units and payer not in (MARKET_MAKER, INSURANCE)):
            raise ValueError(f"{payer} has {source.free} free {asset}, cannot pay {units}")
        source.free -= units
        self._balances[payee][asset].free += units

    def totals(self) -> dict[str, int]:
        """Units of each asset over all accounts, the house's included."""
        sums: defaultdict[str, int] = defaultdict(int)
        for account in self._balances.values():
            for asset, held in account.items():
                sums[asset] += held.total
        return dict(sums)
