"""Money that may be spent, by a call or by all calls of a client, and what is gone of it. Pure."""

from __future__ import annotations

from lm_deluge.errors import BudgetError

__all__ = ["Budget", "CallBudget"]


class Budget:
    """So much may be spent, in US dollars. Streams that are under way are in `spent`, as far as they came."""

    def __init__(self, max_cost: float, owner: str) -> None:
        self.max_cost = max_cost
        self.spent = 0.0
        self._owner = owner

    def refusal(self, more: float = 0.0) -> BudgetError | None:
        """Return the error of a purse that `more` would be too much for; None where there is enough in it."""
        if self.spent + more <= self.max_cost:
            return None
        return BudgetError(
            f"{self._owner} has spent ${self.spent:.6f}, and max_cost is ${self.max_cost:.6f}",
            hint="What came before is in `partial`." if not more else "Nothing of it was sent.",
        )


class CallBudget:
    """What one call takes out of the purses that pay for it."""

    def __init__(self, budgets: tuple[Budget, ...]) -> None:
        self._budgets = budgets
        self._taken = 0.0

    def check(self, more: float) -> None:
        """See that there is enough for what a request costs at least.

        Raises:
            BudgetError: There is not.
        """
        for budget in self._budgets:
            if refusal := budget.refusal(more):
                raise refusal

    def charge(self, cost: float) -> BudgetError | None:
        """Note what the call has cost so far, all of it; return why it may go on no longer, if so."""
        for budget in self._budgets:
            budget.spent += cost - self._taken
        self._taken = cost
        return next((refusal for budget in self._budgets if (refusal := budget.refusal())), None)
