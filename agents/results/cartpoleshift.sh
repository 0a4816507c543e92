#!/usr/bin/env bash
# The comparison on DQN-CartPoleShift: bash cartpoleshift.sh DIRECTORY
# Between four and five hours on two cores; interrupted, the same command goes on.
set -euo pipefail
task=dacrl/DQN-CartPoleShift-v0
out=${1:?where to write}
ranges="objective='auc',space={'learning_rate':(1e-6,1e-2),'epsilon':(0.02,0.5),\
'replay_window':(1000,20000)}"
cma="objective='auc',seeds=2,sigma=0.1,space={'learning_rate':(1e-6,1e-2),\
'epsilon':(0.02,0.5),'replay_window':(1000,20000)}"
# where freeze-when-good is
freeze="start={'threshold':0.6,'learning_rate/above':1e-6}"
soft_freeze="start={'gate/bias':-2.4,'gate/progress':0.0,'gate/return/level':3.5,\
'learning_rate/above':1e-6}"
static="static=sequential-halving,$ranges"
schedule="schedule=sequential-halving,family='schedule',$ranges"
switch="warm switch=sequential-halving,family='switch',$freeze,$ranges"
cost=(--budget 2e7 --runs 3 --shuffled --workers 2)

dacrl compare $task \
  --policies default freeze=freeze-when-good reduce-on-plateau lr-bandit vdbe \
  meta-gradients \
  --methods "PBT=pbt,population=400,$ranges" "$static" "$schedule" "$switch" \
  "gate=cma-es,family='gate',$cma" \
  "warm gate=cma-es,family='gate',$soft_freeze,$cma" \
  "time-only gate=cma-es,family='gate',rows=('progress',),$cma" \
  --seeds 43 --policy-seeds 128 "${cost[@]}" --out "$out"
# three times as many test runs of the best
from_static="sequential-halving,static_first=True"
staged="schedule from static=$from_static,family='schedule',$ranges"
tuned_freeze="tuned freeze=sequential-halving,family='freeze',$ranges"
best=(dacrl compare $task --policies default freeze=freeze-when-good --seeds 128
  "${cost[@]}" --out "$out")
"${best[@]}" --methods "$schedule" "$switch" \
  "switch from static=$from_static,family='switch',$freeze,$ranges"
# the figure
"${best[@]}" --methods "$static" "$staged" "$tuned_freeze"
cp "$out"/dacrl-*/curves.png "$out/best.png"
dacrl report "$out" --reference "tuned freeze"
# once more the best, on test seeds that nothing above has seen
mkdir -p "$out/fresh"
cp -ru "$out/results" "$out/fresh"
dacrl compare $task --policies default freeze=freeze-when-good \
  --methods "$static" "$staged" "$tuned_freeze" --seeds 128:256 --budget 2e7 --runs 3 \
  --workers 2 --reference "tuned freeze" --out "$out/fresh"
