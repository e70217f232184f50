#!/bin/busybox sh
# What the guest of guest.py does, by the words it is given:
#   guest.write         writes a file to the disk it was booted from
#   guest.ip=A/N        its address (else the first one in the seed's network-config)
#   guest.ping=A        asks A whether it is there
#   guest.stay          stays and ticks, once a second, until it is told to shut down
#   guest.verify[=N]    writes and verifies its second partition, N times or until told to shut down
#   guest.spoil=N       spoils what pass N wrote: shows that it would be noticed
#   guest.deaf          does not shut down when it is asked to
# Without guest.stay or guest.verify it powers off when it has said its marker.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod "/lib/modules/$module"; done </lib/modules/order

has() { case " $words " in *" $1 "* | *" $1="*) ;; *) false ;; esac; }
value() { for word in $words; do case $word in "$1="*) echo "${word#*=}" ;; esac; done | tail -n 1; }

# the disk

tries=0
until disk=$(findfs LABEL=GUEST 2>/dev/null) || [ $tries -ge 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
mount -t ext4 "$disk" /mnt && cat /mnt/marker.txt

# the seed: ISO 9660 labelled cidata, as cloud-init's NoCloud wants it; findfs does not see it

find_seed() {
    for device in /dev/vd? /dev/sd?; do
        case $(dd if="$device" bs=1 skip=32808 count=6 2>/dev/null) in # of the primary descriptor
            cidata | CIDATA) echo "$device" && return ;;
        esac
    done
}
seed=$(find_seed)
if [ -n "$seed" ] && mount -o ro "$seed" /seed; then
    for file in user-data meta-data network-config; do
        [ -e /seed/$file ] && awk -v file=$file '{print "GUEST-SEED " file ": " $0}' /seed/$file
    done
    # YAML, of which JSON is a part
    hostname "$(sed -n 's/.*local-hostname"*: *"*\([A-Za-z0-9.-]*\).*/\1/p' /seed/meta-data)"
fi

# the words: from the kernel's command line, the image, and comments in the user-data

words="$(cat /proc/cmdline /mnt/guest.conf 2>/dev/null)
    $(sed -n 's/^# *\(guest\.\)/\1/p' /seed/user-data 2>/dev/null)"
words=$(echo $words)

if has guest.write; then
    echo written >/mnt/written.txt && sync && cat /mnt/written.txt
fi
umount /mnt

# the network

ip link set lo up
address=$(value guest.ip)
[ -n "$address" ] || address=$(grep -o -m 1 '[0-9.]*\.[0-9]*/[0-9]*' /seed/network-config 2>/dev/null)
if [ -n "$address" ]; then
    ip link set eth0 up
    ip addr add "$address" dev eth0
    nc -ll -p 22 -e /banner &
    echo "GUEST-NET $(ip -4 -o addr show eth0)"
fi
if has guest.ping; then
    ping -q -c 1 -W 10 "$(value guest.ping)" >/dev/null && echo GUEST-PING ok || echo GUEST-PING failed
fi

# being asked to shut down: the first event of the power button

await_shutdown() {
    for event in /sys/class/input/event*; do
        grep -q 'Power Button' "$event/device/name" || continue
        dd bs=24 count=1 <"/dev/input/${event##*/}" >/dev/null 2>&1
        echo GUEST-SHUTDOWN
        sync
        poweroff -f
    done
}
has guest.deaf || await_shutdown &

# writing and verifying: each 64-byte line holds the run, the pass and its own offset; what was
# written is read past the page cache, with what was written longest ago

run=$(cut -c 1-8 /proc/sys/kernel/random/boot_id)
spare=${disk%1}2
slots=8
size=131072

pattern() { # PASS
    awk -v run="$run" -v pass="$1" -v size=$size 'BEGIN {
        for (at = 0; at < size; at += 64)
            printf "run %s pass %010d offset %010d %-16s\n", run, pass, at, "locatable data"
    }'
}

sum() { # SLOT
    dd if="$spare" bs=$size skip="$1" count=1 iflag=direct,fullblock 2>/tmp/error | md5sum
}

verify() { # PASSES, 0 for ever
    pass=0
    while [ "$1" = 0 ] || [ $pass -lt "$1" ]; do
        slot=$((pass % slots))
        oldest=$(((pass + 1) % slots))
        pattern $pass >/tmp/pattern
        eval "sum$slot='$(md5sum </tmp/pattern)'"
        if ! dd if=/tmp/pattern of="$spare" bs=65536 seek=$((slot * size / 65536)) \
            conv=notrunc,fsync 2>/tmp/error; then
            echo "GUEST-FAIL pass $pass: write: $(tail -n 1 /tmp/error)"
        fi
        if [ "$pass" = "$(value guest.spoil)" ]; then
            dd if=/dev/zero of="$spare" bs=512 seek=$((slot * size / 512 + 9)) count=1 \
                conv=notrunc,fsync 2>/dev/null
        fi
        is_good=yes
        for one in $slot $oldest; do
            eval "want=\${sum$one-}"
            [ -z "$want" ] || [ "$(sum $one)" = "$want" ] && continue
            is_good=no
            echo "GUEST-FAIL pass $pass: slot $one does not hold its pass: $(tail -n 1 /tmp/error)"
        done
        [ $is_good = yes ] && echo "GUEST-OK $pass"
        pass=$((pass + 1))
        sleep 0.1
    done
}

if has guest.verify; then
    passes=$(value guest.verify)
    verify "${passes:-0}"
elif has guest.stay; then
    tick=0
    while :; do
        echo "GUEST-TICK $tick"
        tick=$((tick + 1))
        sleep 1
    done
fi
echo GUEST-DONE
sync
poweroff -f
