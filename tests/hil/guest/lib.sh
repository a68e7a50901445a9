# The steps of the scenarios. Times are in seconds since the guest's boot.
# shellcheck shell=dash disable=SC2034  # scenarios.sh uses the variables that are set here.

modules=/lib/modules/$(uname -r)
camera=/dev/video10
work=/tmp/hil
# An emulated processor is slow, so affectd analyses half as many faces per second as by default.
export AFFECTD_CONFIG=/dev/null AFFECTD_FACE_RATE_HZ=5

load() { # MODULE [OPTION…]: loads a kernel module after its dependencies
    wanted=$1 && shift
    while read -r file; do
        name=${file%.ko}
        [ "$name" = "$wanted" ] && break
        case $name in vivid | snd-aloop | virtio_blk) continue ;; esac
        insmod "$modules/$file" 2>/dev/null
    done <"$modules/order"
    insmod "$modules/$wanted.ko" "$@"
}

now() { cut -d' ' -f1 /proc/uptime; }

since() { echo "$(now) $1" | awk '{ printf "%.1f", $1 - $2 }'; }

# Starts affectd in the background with the devices of the AFFECTD_* variables. Its estimates go to $work/lines, its log to
# $work/log, and its newest health record to $work/health. Sets $pid.
start_affectd() { # [--output SPEC…]
    : >$work/log
    : >$work/lines
    /hil/affectd run --output stdout --output serial:$work/port "$@" >$work/lines 2>$work/log &
    pid=$!
}

stop_affectd() {
    kill -TERM "$pid" 2>/dev/null
    wait "$pid"
    ended=$?
}

feed_camera() { # RATE [FOURCC WIDTH HEIGHT FILE]
    /hil/feed video $camera "${2:-MJPG}" "${3:-640}" "${4:-480}" "$1" "${5:-/hil/face.mjpg}" 2>>$work/feed.log &
    feeder=$!
}

feed_microphone() {
    /hil/feed audio hw:CARD=Loopback,DEV=0 48000 /hil/face.s16 2>>$work/feed.log &
    player=$!
}

# Waits until FILE has TEXT, after the first $marked lines. Fails after SECONDS. Sets $took to the seconds it waited.
await_in() { # FILE TEXT SECONDS
    began=$(now)
    until tail -n +$((marked + 1)) "$1" | grep -q "$2"; do
        kill -0 "$pid" 2>/dev/null || { echo "    affectd has ended"; return 1; }
        if [ "$(since "$began" | cut -d. -f1)" -ge "$3" ]; then
            echo "    not seen within $3 s: $2"
            return 1
        fi
        sleep 0.1
    done
    took=$(since "$began")
    echo "    $2: after $took s"
}

# `await` waits until the log has TEXT. After `mark`, it ignores the lines that the log has now.
mark() { marked=$(wc -l <$work/log); }
await() { await_in $work/log "$@"; } # TEXT SECONDS

# Waits until the newest health record matches.
await_health() { # PATTERN SECONDS
    before=$marked marked=0
    await_in $work/health "$@"
    found=$?
    marked=$before
    return $found
}

# Waits until the health record has the state, and then the log, which may follow later.
await_state() { # camera|microphone STATE SECONDS
    await_health "\"$1\":\"$2\"" "$3" || return 1
    in_health=$took
    await "$1 $2" 10 || return 1
    took=$in_health
}

# Waits until a device runs again. Fails if that takes longer than 2 s. The host prints the time.
recovers() { # camera|microphone
    await_state "$1" running 10 || return 1
    echo "HIL RECOVERED $1 $took"
    within 2
}

# Waits until the newest estimate matches.
await_line() { # PATTERN SECONDS
    began=$(now)
    until tail -n 1 $work/lines | grep -q "$1"; do
        if [ "$(since "$began" | cut -d. -f1)" -ge "$2" ]; then
            echo "    no estimate within $2 s: $1"
            return 1
        fi
        sleep 0.1
    done
    took=$(since "$began")
    echo "    estimate with $1: after $took s"
}

# Passes FILE to the host on the disk.
sector=0
marked=0
give() { # FILE NAME
    bytes=$(wc -c <"$1")
    dd if="$1" of=/dev/vda bs=512 seek=$sector conv=notrunc 2>/dev/null
    echo "HIL FILE $2 $sector $bytes"
    sector=$((sector + bytes / 512 + 1))
}

# Makes the host run a command of QEMU's monitor.
host() { echo "HIL QEMU $*"; }

lines() { wc -l <$work/lines; }

# Succeeds if every estimate after line N matches and none is missing: their `t` are 0.2 s apart.
always_since() { # N PATTERN
    tail -n +$(($1 + 1)) $work/lines >$work/part
    all=$(wc -l <$work/part)
    with=$(grep -c "$2" $work/part)
    gap=$(sed 's/.*"t":\([0-9.]*\).*/\1/' $work/part |
        awk 'NR > 1 && $1 - last > most { most = $1 - last } { last = $1 } END { printf "%.1f", most }')
    echo "    $with of $all estimates have $2; the largest gap is $gap s"
    [ "$all" -gt 0 ] && [ "$all" = "$with" ] && [ "$gap" = 0.2 ]
}

# Succeeds if the last wait took no longer than SECONDS.
within() { # SECONDS
    echo "$took $1" | awk '{ exit !($1 <= $2) }' || { echo "    it took longer than $1 s"; return 1; }
}

# Runs a scenario and prints its verdict as a line.
scenario() { # NAME
    echo "HIL START $1 at $(now)"
    mkdir -p $work
    : >$work/feed.log
    : >$work/health
    /hil/ask $work/port $work/health &
    asker=$!
    sleep 0.1
    if "$1"; then
        echo "HIL PASS $1"
    else
        failed="$failed $1"
        echo "HIL FAIL $1"
        tail -n 12 $work/log | sed 's/^/    log: /'
        tail -n 2 $work/lines | sed 's/^/    line: /'
        sed 's/^/    health: /' $work/health
        sed 's/^/    feed: /' $work/feed.log | tail -n 3
    fi
    for process in $pid $feeder $player $asker; do
        kill -CONT "$process" 2>/dev/null
        kill -KILL "$process" 2>/dev/null
        wait "$process" 2>/dev/null
    done
    rm -f $work/port
    vivid_is_plugged_in || plug_vivid
    pid='' feeder='' player='' asker='' marked=0
    unset AFFECTD_CAMERA_DEVICE AFFECTD_MICROPHONE_DEVICE AFFECTD_CAMERA_RATE_HZ AFFECTD_CAMERA_WIDTH AFFECTD_CAMERA_HEIGHT
    unset AFFECTD_CAMERA_FORMAT AFFECTD_OUTPUT
}
