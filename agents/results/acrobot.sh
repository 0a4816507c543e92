#!/usr/bin/env bash
# The comparison on DQN-Acrobot: bash acrobot.sh DIRECTORY
# About three hours on two cores; interrupted, the same command goes on.
set -euo pipefail
out=${1:?where to write}
ranges="objective='auc',space={'learning_rate':(1e-6,1e-2),'epsilon':(0.02,0.5),\
'batch_size':(16,256)}"
cma="objective='auc',seeds=2,sigma=0.1,space={'learning_rate':(1e-6,1e-2),\
'epsilon':(0.02,0.5),'batch_size':(16,256)}"

compare=(dacrl compare dacrl/DQN-Acrobot-v0 --workers 2 --out "$out"
  --policies default freeze=freeze-when-good)
tuned=(--budget 5e6 --runs 3 --seeds 43 --policy-seeds 128)

"${compare[@]}" reduce-on-plateau lr-bandit vdbe meta-gradients --seeds 128
methods=(--methods "PBT=pbt,population=50,$ranges" "static=sequential-halving,$ranges"
  "schedule from static=sequential-halving,static_first=True,family='schedule',$ranges"
  "time-only gate=cma-es,family='gate',rows=('progress',),$cma"
  "tuned freeze=sequential-halving,family='freeze',$ranges")
"${compare[@]}" "${tuned[@]}" "${methods[@]}" --shuffled
# the figure
"${compare[@]}" "${tuned[@]}" "${methods[@]}"
cp "$out"/dacrl-*/curves.png "$out/best.png"
dacrl report "$out" --reference "tuned freeze"
