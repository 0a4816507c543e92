#!/usr/bin/env bash
# The comparison on DQN-Acrobot: bash acrobot.sh DIRECTORY
# About two hours and a quarter on two cores; interrupted, the same command goes on.
set -euo pipefail
out=${1:?where to write}
ranges="objective='auc',space={'learning_rate':(1e-6,1e-2),'epsilon':(0.02,0.5),\
'batch_size':(16,256)}"

dacrl compare dacrl/DQN-Acrobot-v0 --policies reduce-on-plateau lr-bandit vdbe \
  meta-gradients --seeds 128 --workers 2 --out "$out"
dacrl compare dacrl/DQN-Acrobot-v0 --policies default freeze=freeze-when-good \
  --methods "static=sequential-halving,$ranges" \
  "tuned freeze=sequential-halving,family='freeze',$ranges" \
  "schedule from static=sequential-halving,static_first=True,family='schedule',$ranges" \
  --budget 5e6 --runs 3 --seeds 43 --policy-seeds 128 --shuffled --workers 2 \
  --reference "tuned freeze" --out "$out"
