#!/usr/bin/env bash
# The comparison on DQN-CartPole: bash cartpole.sh DIRECTORY
# About an hour on two cores; interrupted, the same command goes on.
set -euo pipefail
out=${1:?where to write}
ranges="objective='auc',space={'learning_rate':(1e-6,1e-2),'epsilon':(0.02,0.5),\
'batch_size':(16,256)}"
# where freeze-when-good is
freeze="start={'threshold':0.6,'learning_rate/above':1e-6}"

switch="warm switch=sequential-halving,family='switch',$freeze,$ranges"
compare=(dacrl compare dacrl/DQN-CartPole-v0 --workers 2 --out "$out"
  --policies default freeze=freeze-when-good)
tuned=(--budget 5e6 --runs 3)

"${compare[@]}" reduce-on-plateau lr-bandit vdbe meta-gradients --seeds 128
"${compare[@]}" "${tuned[@]}" --methods "static=sequential-halving,$ranges" \
  "schedule=sequential-halving,family='schedule',$ranges" "$switch" \
  --seeds 43 --policy-seeds 128 --shuffled
# three times as many test runs of the best
"${compare[@]}" "${tuned[@]}" --methods "$switch" --seeds 128
dacrl report "$out" --reference "warm switch"
