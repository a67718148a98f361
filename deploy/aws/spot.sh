#!/bin/bash
# Watches for the notice, two minutes ahead, that this spot machine will be taken; then hands its workers' results to
# others and stops them, so that the scheduler counts no lost worker. IMDS may be set for tests.
# usage: spot.sh COMMAND...   (what to run once the notice is there)
imds=${IMDS:-http://169.254.169.254}
every_seconds=${EVERY_SECONDS:-5}

noticed() {
  local token
  token=$(curl -sf -m 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 300" "$imds/latest/api/token") || return 1
  curl -sf -m 2 -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$imds/latest/meta-data/spot/instance-action"
}

until noticed; do sleep "$every_seconds"; done
echo "this spot machine will be taken within two minutes: its workers retire"
exec "$@"
