#!/usr/bin/env bash
# The comparison on DQN-CartPole: bash cartpole.sh DIRECTORY
# About two hours on two cores; interrupted, the same command goes on.
set -euo pipefail
out=${1:?where to write}
ranges="objective='auc',space={'learning_rate':(1e-6,1e-2),'epsilon':(0.02,0.5),\
'batch_size':(16,256)}"
# where freeze-when-good is
freeze="start={'threshold':0.6,'learning_rate/above':1e-6}"

cma="objective='auc',seeds=2,sigma=0.1,space={'learning_rate':(1e-6,1e-2),\
'epsilon':(0.02,0.5),'batch_size':(16,256)}"

static="static=sequential-halving,$ranges"
staged="schedule from static=sequential-halving,static_first=True,family='schedule',$ranges"
gate="time-only gate=cma-es,family='gate',rows=('progress',),$cma"
rule="tuned freeze=sequential-halving,family='freeze',$ranges"
switch="warm switch=sequential-halving,family='switch',$freeze,$ranges"
compare=(dacrl compare dacrl/DQN-CartPole-v0 --workers 2 --out "$out"
  --policies default freeze=freeze-when-good)
tuned=(--budget 5e6 --runs 3)

"${compare[@]}" reduce-on-plateau lr-bandit vdbe meta-gradients --seeds 128
"${compare[@]}" "${tuned[@]}" --methods "PBT=pbt,population=100,$ranges" "$static" \
  "schedule=sequential-halving,family='schedule',$ranges" "$staged" "$gate" "$switch" \
  "$rule" --seeds 43 --policy-seeds 128 --shuffled
# the figure
"${compare[@]}" "${tuned[@]}" --methods "$static" "$staged" "$gate" "$switch" "$rule" \
  --seeds 43 --policy-seeds 128
cp "$out"/dacrl-*/curves.png "$out/best.png"
# three times as many test runs of the best
"${compare[@]}" "${tuned[@]}" --methods "$switch" --seeds 128
dacrl report "$out" --reference "warm switch"
