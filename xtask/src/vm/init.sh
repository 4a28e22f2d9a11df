#!/bin/busybox sh
# The first process of a test guest: mounts what a host has, runs the tests, says how they ended.
# The last line counts: the emulator ends the same way after a panic.
/bin/busybox --install -s
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf -o mode=0700 bpf /sys/fs/bpf
ip link set lo up
for module in /modules/*.ko; do
    insmod "$module"
done
ip link add other type dummy
echo "VMTEST-KERNEL=$(uname -r)"
echo "VMTEST-LSM=$(cat /sys/kernel/security/lsm)"
failed=0
export TIDEGATE_BINARY=/tests/tidegate
cd /tests
for names in *.names; do
    test="${names%.names}"
    echo "VMTEST-BEGIN=$test"
    "./$test" --ignored --test-threads 1 --color never --show-output --exact $(cat "$names") </dev/null 2>&1 || failed=1
done
echo "VMTEST-RC=$failed"
poweroff -f
