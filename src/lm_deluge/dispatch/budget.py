"""`max_cost`: what a call, or all calls of a client, may cost and have cost. Pure."""

from __future__ import annotations

from lm_deluge.errors import BudgetError

__all__ = ["Budget", "CallBudget"]


class Budget:
    """A limit of cost.

    Attributes:
        max_cost: The limit in US dollars.
        spent: What was spent, running streams included as far as they were received.
    """

    def __init__(self, max_cost: float, owner: str) -> None:
        self.max_cost = max_cost
        self.spent = 0.0
        self._owner = owner

    @property
    def total(self) -> float:
        """What counts against the limit: what was spent."""
        return self.spent

    def refusal(self, more: float = 0.0) -> BudgetError | None:
        """Return the error if `more` US dollars exceed the limit; None if they do not."""
        if self.total + more <= self.max_cost:
            return None
        return BudgetError(
            f"{self._owner} has spent ${self.total:.6f}, and max_cost is ${self.max_cost:.6f}",
            hint="The answer so far is in `partial`." if not more else "Nothing was sent for it.",
        )


class CallBudget:
    """The share of one call in the budgets that apply to it."""

    def __init__(self, budgets: tuple[Budget, ...]) -> None:
        self._budgets = budgets
        self._charged = 0.0

    def check(self, more: float) -> None:
        """Check that a request may be sent which costs at least `more` US dollars.

        Raises:
            BudgetError: It would exceed a budget.
        """
        for budget in self._budgets:
            if refusal := budget.refusal(more):
                raise refusal

    def charge(self, cost: float) -> BudgetError | None:
        """Note the total cost of the call so far; return the error if a budget is exceeded."""
        for budget in self._budgets:
            budget.spent += cost - self._charged
        self._charged = cost
        return next((refusal for budget in self._budgets if (refusal := budget.refusal())), None)
