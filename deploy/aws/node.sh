#!/bin/bash
# Makes a fresh Amazon Linux 2023 instance a member of an lmr cluster. Run once, as root, by the instance's user
# data, which has fetched and checked the bundle that this script is part of, and sets ROLE (scheduler, worker),
# CLUSTER, REGION, BUCKET, FILE_SYSTEM, ACCESS_POINT, LOG_GROUP and, for workers, SCHEDULER. Whatever fails is tried
# again: a member that comes up late is better than none.
set -euo pipefail

FILES=/opt/lmr/bundle
TLS=/etc/lmr/tls
LOGS=/var/log/lmr

say() { echo "lmr node: $*"; }

again() { # COMMAND...: until it succeeds, with growing pauses
  local pause=5
  until "$@"; do
    say "failed, again in $pause s: $1"
    sleep "$pause"
    pause=$((pause < 60 ? pause * 2 : 60))
  done
}

gpus() { nvidia-smi -L &>/dev/null; }

packages() {
  dnf install -y -q python3.11 python3.11-pip amazon-efs-utils amazon-cloudwatch-agent
}

code() { # every package has the digest that was looked at when versions were pinned; nothing is built here
  local kind=cpu wheel
  if gpus; then kind=gpu; fi
  test -x /opt/lmr/bin/python || python3.11 -m venv /opt/lmr || return
  pip --require-hashes --only-binary :all: -r "$FILES/requirements-$kind.txt" || return
  # lmr itself comes from the bundle, whose digest the user data has checked, and from nowhere else.
  wheel=$(awk '$2 ~ /\.whl$/ { print $2 }' "$FILES/SHA256SUMS")
  pip --no-deps --no-index "$FILES/$wheel"
}

pip() { /opt/lmr/bin/pip install --quiet --disable-pip-version-check "$@"; }

certificate() { # FILE: from an encrypted parameter that this role alone may read
  aws ssm get-parameter --region "$REGION" --with-decryption --name "/lmr/$CLUSTER/$ROLE/$1" \
    --query Parameter.Value --output text 2>/dev/null >"$TLS/$1.part" || return 1
  chown lmr:lmr "$TLS/$1.part"
  chmod 0400 "$TLS/$1.part"
  mv "$TLS/$1.part" "$TLS/$1"
}

file_system() { # encrypted on its way, and only as far as this role may
  grep -q " /mnt/lmr " /etc/fstab ||
    echo "$FILE_SYSTEM:/ /mnt/lmr efs _netdev,nofail,tls,iam,accesspoint=$ACCESS_POINT 0 0" >>/etc/fstab
  mountpoint -q /mnt/lmr || mount /mnt/lmr
}

logs() {
  cat >/opt/aws/amazon-cloudwatch-agent/etc/lmr.json <<VALUES
{"logs": {"logs_collected": {"files": {"collect_list": [
  {"file_path": "$LOGS/*.log", "log_group_name": "$LOG_GROUP", "log_stream_name": "$ROLE/{instance_id}"}
]}}}}
VALUES
  /opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s \
    -c file:/opt/aws/amazon-cloudwatch-agent/etc/lmr.json &>/dev/null
}

units() {
  local gpu=""
  if gpus; then gpu=--gpu; fi
  cat >/etc/lmr/node.env <<VALUES
ADDRESS=${SCHEDULER:-}
AWS_DEFAULT_REGION=$REGION
LMR_BUCKET=$BUCKET
LMR_CACHE=/var/cache/lmr
LMR_GPU=$gpu
VALUES
  chown root:lmr /etc/lmr/node.env
  chmod 0640 /etc/lmr/node.env
  install -m 0755 "$FILES/spot.sh" "$FILES/logged.sh" /opt/lmr/bin/
  install -m 0644 "$FILES/lmr-$ROLE.service" /etc/systemd/system/
  if [ "$ROLE" = worker ]; then install -m 0644 "$FILES/lmr-spot.service" /etc/systemd/system/; fi
  systemctl daemon-reload
  systemctl enable --now "lmr-$ROLE.service"
  if [ "$ROLE" = worker ]; then systemctl enable --now lmr-spot.service; fi
}

main() {
  getent passwd lmr >/dev/null || useradd --system --uid 1500 --home-dir /var/cache/lmr --create-home lmr
  install -d -m 0755 /mnt/lmr
  install -d -m 0750 -o lmr -g lmr "$TLS" "$LOGS" /var/cache/lmr
  again packages
  again code
  for name in ca.pem "$ROLE.pem" "$ROLE.key"; do again certificate "$name"; done
  again file_system
  again logs
  units
  say "this machine is a $ROLE of the cluster $CLUSTER"
}

main "$@"
