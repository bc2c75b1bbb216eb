"""The one tree of exceptions of this system.

Every error that a user can meet derives from `MtstError` and says what is wrong, where, and what to do::

    MtstError
    +-- SettingsError          a setting, file or flag is wrong
    |   +-- SecretError        a key file is missing, empty or readable by others
    +-- StartError             something cannot be started (port taken, disk full, second run, missing program)
    +-- DataError              data cannot be used
    |   +-- CandleError        a candle table breaks its contract
    |   +-- StoreError         a stored series is missing, half-written or does not match its manifest
    |   +-- SpecError          a data-set specification is wrong or does not fit the data
    |   +-- SourceError        an exchange or data source failed or answered garbage
    |       +-- UnreachableError     it does not answer at all, or will not for long
    +-- ModelError             a model cannot be built, trained or used
    |   +-- TrainingError      training diverged or cannot run
    |   +-- ArtifactError      an artifact is damaged, incomplete or of another kind
    |   +-- ForecastError      a forecast is malformed, stale or unavailable
    |   +-- RequestError       a question to the prediction service is malformed
    |   +-- RegistryError      the model registry lacks or refuses something
    +-- TradingError           trading cannot go on as asked
    |   +-- OrderError         an intent or order is malformed
    |   +-- RefusedError       the risk manager refused an entry
    |   +-- GateError          the risk manager cannot be asked: entries stay closed
    |   +-- JournalError       the journal cannot be written or read
    |   +-- LeaseError         the account's lease is held elsewhere or lost
    |   +-- ExchangeError      the sandbox exchange was asked something that it must refuse
    +-- ClusterError           the cluster cannot be reached or does not answer
    +-- MetricError            a metric or label that the catalogue does not know
"""

from __future__ import annotations


class MtstError(Exception):
    """Base of all our errors.

    Args:
        what: what is wrong, as one sentence.
        where: file, pair, time, setting or address that it concerns.
        todo: what the user can do about it.
    """

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what, self.where, self.todo = what, where, todo
        super().__init__(self.__str__())

    def __str__(self) -> str:
        where = f" [{self.where}]" if self.where else ""
        todo = f" -> {self.todo}" if self.todo else ""
        return f"{self.what}{where}{todo}"

    def __reduce__(self) -> tuple[object, ...]:
        # Ray carries exceptions between processes; keyword-only fields would be lost by the default protocol.
        return _rebuild, (type(self), self.what, self.where, self.todo)


def _rebuild(kind: type[MtstError], what: str, where: str, todo: str) -> MtstError:
    return kind(what, where=where, todo=todo)


class SettingsError(MtstError):
    """A setting, file or flag is wrong."""


class SecretError(SettingsError):
    """A key file is missing, empty or readable by others."""


class StartError(MtstError):
    """Something cannot be started."""


class DataError(MtstError):
    """Data cannot be used."""


class CandleError(DataError):
    """A candle table breaks its contract."""


class StoreError(DataError):
    """A stored series is missing, half-written or does not match its manifest."""


class SpecError(DataError):
    """A data-set specification is wrong or does not fit the data."""


class SourceError(DataError):
    """An exchange or data source failed or answered garbage."""


class UnreachableError(SourceError):
    """A source does not answer at all, or will not for long: asking it for more is useless."""


class ModelError(MtstError):
    """A model cannot be built, trained or used."""


class TrainingError(ModelError):
    """Training diverged or cannot run."""


class ArtifactError(ModelError):
    """An artifact is damaged, incomplete or of another kind."""


class ForecastError(ModelError):
    """A forecast is malformed, stale or unavailable."""


class RequestError(ModelError):
    """A question to the prediction service is malformed."""


class RegistryError(ModelError):
    """The model registry lacks or refuses something."""


class TradingError(MtstError):
    """Trading cannot go on as asked."""


class OrderError(TradingError):
    """An intent or order is malformed."""


class RefusedError(TradingError):
    """The risk manager refused an entry."""


class GateError(TradingError):
    """The risk manager cannot be asked: entries stay closed."""


class JournalError(TradingError):
    """The journal cannot be written or read."""


class LeaseError(TradingError):
    """The account's lease is held elsewhere or lost."""


class ExchangeError(TradingError):
    """The sandbox exchange was asked something that it must refuse."""


class ClusterError(MtstError):
    """The cluster cannot be reached or does not answer."""


class MetricError(MtstError):
    """A metric or label that the catalogue does not know."""
