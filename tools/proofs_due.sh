#!/usr/bin/env bash
# Says in one line whether `make proofs` is due, and why: what it watches has changed since the commit that main has, or no
# such commit is known. CI_BASE names another.
set -euo pipefail
cd "$(dirname "$0")/.."

# What planted bugs and mutations are planted in, what the machines drive, and what all of them run with.
watched=(
    src/comptoir/dispatch src/comptoir/ledger src/comptoir/jobs src/comptoir/kinds src/comptoir/hosts src/comptoir/routing
    src/comptoir/receipts src/comptoir/events src/comptoir/outbox src/comptoir/webhooks src/comptoir/nodes src/comptoir/link src/comptoir/kit src/comptoir/chain
    src/comptoir/gateway src/comptoir/dialects src/comptoir/blobs src/comptoir/worker/sandbox openapi
    src/comptoir/app.py bench/bench_strangers.py tests/journeys tests/proofs tests/dispatch tests/rooms tests/kinds tests/kit tests/worker/sandbox tests/dialects/test_schemathesis.py
    tests/cli/test_file_memory.py
    ':(glob)tests/*.py' pyproject.toml requirements/dev.txt .ci tools/proofs_due.sh
)

base="${CI_BASE:-}"
for main in origin/HEAD origin/main main; do
    [ -n "$base" ] || base="$(git merge-base HEAD "$main" 2>/dev/null || true)"
done
if [ -z "$base" ] || ! git cat-file -e "$base^{commit}" 2>/dev/null; then
    echo "Proofs: no commit is known to compare with."
elif [ -z "${CI_BASE:-}" ] && [ "$base" = "$(git rev-parse HEAD)" ] && git diff --quiet HEAD; then
    echo "Proofs: this is the commit that main has, so there is none to compare with."
else
    changed="$( (git diff --name-only "$base" -- "${watched[@]}"; git ls-files --others --exclude-standard -- "${watched[@]}") | sed -n 1p)"
    if [ -n "$changed" ]; then
        echo "Proofs: $changed has changed since ${base:0:12}."
    else
        echo "No proofs: nothing that they watch has changed since ${base:0:12}."
    fi
fi
