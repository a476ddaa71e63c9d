#!/bin/sh
# The first process of a guest. /host is a directory of the machine that started it, and /host/job.sh says what to do.
export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
exec </dev/console >/dev/console 2>&1

# Arguments of the kernel that begin with guest_ are ours.
for word in $(cat /proc/cmdline); do
    case $word in guest_*=*) export "$word" ;; esac
done
for module in $guest_modules; do modprobe "$module" || echo "guest: no module $module"; done

hostname guest
ip link set lo up
ip addr add "$guest_address/30" dev vec0
ip link set vec0 up
ip route add default via "$guest_gateway"
mount -t hostfs none /host -o "$guest_host"

echo "guest: ready $(cut -d' ' -f1 /proc/uptime) $(uname -r)"
sh /host/job.sh
echo "guest: status $?"
sync
poweroff -f
