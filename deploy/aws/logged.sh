#!/bin/bash
# Runs a command as this very process, with what it prints sent to a log without account ids, keys and bucket names.
# usage: logged.sh LOG COMMAND...
log=$1
shift
exec > >(exec sed -u -E \
  -e "s/${LMR_BUCKET:-\$^}/BUCKET/g" \
  -e 's#s3://[a-z0-9.-]+#s3://BUCKET#g' \
  -e 's/\b[0-9]{12}\b/ACCOUNT/g' \
  -e 's/\b(AKIA|ASIA)[A-Z0-9]{16}\b/KEY/g' >>"$log") 2>&1
exec "$@"
