#!/usr/bin/env bash
# The comparison on DQN-Acrobot: bash acrobot.sh DIRECTORY
# About an hour and a half on two cores; interrupted, the same command goes on.
set -euo pipefail
out=${1:?where to write}
ranges="objective='auc',space={'learning_rate':(1e-6,1e-2),'epsilon':(0.02,0.5),\
'batch_size':(16,256)}"
# where freeze-when-good is
freeze="start={'threshold':0.6,'learning_rate/above':1e-6}"

dacrl compare dacrl/DQN-Acrobot-v0 --policies default freeze=freeze-when-good \
  --methods "static=sequential-halving,$ranges" \
  "schedule=sequential-halving,family='schedule',$ranges" \
  "warm switch=sequential-halving,family='switch',$freeze,$ranges" \
  --budget 5e6 --runs 3 --seeds 43 --policy-seeds 128 --shuffled --workers 2 --out "$out"
dacrl report "$out" --reference "warm switch"
