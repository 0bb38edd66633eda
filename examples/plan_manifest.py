"""See what a run would do, without doing it."""

from pathlib import Path

import falbatch

plan = falbatch.plan(Path(__file__).with_name("kites.yaml"))
print(f"{plan.total} jobs:", {action.value: count for action, count in plan.actions.items() if count})
for job in plan.first:
    print(job.name, job.decision.reason)
