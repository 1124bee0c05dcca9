#!/bin/sh
# After the installation of the package: the user that the service runs as.
# The service is not started: it has no key yet.
set -e
systemd-sysusers /usr/lib/sysusers.d/call-me.conf || useradd --system --home-dir /var/lib/call-me --shell /usr/sbin/nologin call-me
systemctl daemon-reload 2>/dev/null || true
echo "call-me is here. To serve: put a key into /etc/call-me/keys (see /etc/call-me/call-me.env), then: systemctl enable --now call-me"
