# What the scenarios are made of. Times are the guest's own, in seconds since its boot.

modules=/lib/modules/$(uname -r)
camera=/dev/video10
work=/tmp/hil
# An emulated processor is slow: half the faces a second.
export AFFECTD_MODELS=/hil/models AFFECTD_CONFIG=/dev/null AFFECTD_FACE_RATE_HZ=5

load() { # MODULE [OPTION…]: after what it needs
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

# Runs affectd in the background on the devices given by AFFECTD_* variables; $pid is its process.
start_affectd() {
    : >$work/log
    : >$work/lines
    /hil/affectd run >$work/lines 2>$work/log &
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

# Waits until the log says TEXT, after `mark` if that was called; fails after SECONDS. Prints how long it took.
mark() { marked=$(wc -l <$work/log); }
await() { # TEXT SECONDS
    began=$(now)
    until tail -n +$((marked + 1)) $work/log | grep -q "$1"; do
        kill -0 "$pid" 2>/dev/null || { echo "    affectd has ended"; return 1; }
        if [ "$(since "$began" | cut -d. -f1)" -ge "$2" ]; then
            echo "    not within $2 s: $1"
            return 1
        fi
        sleep 0.1
    done
    took=$(since "$began")
    echo "    $1: after $took s"
}

# Waits until the newest estimate has what the pattern says.
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

# Hands FILE to the host, through the disk.
sector=0
marked=0
give() { # FILE NAME
    bytes=$(wc -c <"$1")
    dd if="$1" of=/dev/vda bs=512 seek=$sector conv=notrunc 2>/dev/null
    echo "HIL FILE $2 $sector $bytes"
    sector=$((sector + bytes / 512 + 1))
}

lines() { wc -l <$work/lines; }

# Whether every estimate since line N has what the pattern says.
always_since() { # N PATTERN
    tail -n +$(($1 + 1)) $work/lines >$work/part
    all=$(wc -l <$work/part)
    with=$(grep -c "$2" $work/part)
    echo "    $with of $all estimates meanwhile have $2"
    [ "$all" -gt 0 ] && [ "$all" = "$with" ]
}

# Whether the last recovery took no longer than SECONDS.
within() { # SECONDS
    echo "$took $1" | awk '{ exit !($1 <= $2) }' || { echo "    longer than $1 s"; return 1; }
}

# Runs one scenario: a function of that name. Its output is indented, its verdict is a line.
scenario() { # NAME
    echo "HIL START $1 at $(now)"
    mkdir -p $work
    : >$work/feed.log
    if "$1"; then
        echo "HIL PASS $1"
    else
        failed="$failed $1"
        echo "HIL FAIL $1"
        tail -n 12 $work/log | sed 's/^/    log: /'
        tail -n 2 $work/lines | sed 's/^/    line: /'
        sed 's/^/    feed: /' $work/feed.log | tail -n 3
    fi
    for process in $pid $feeder $player; do
        kill -CONT "$process" 2>/dev/null
        kill -KILL "$process" 2>/dev/null
        wait "$process" 2>/dev/null
    done
    pid= feeder= player= marked=0
    unset AFFECTD_CAMERA_DEVICE AFFECTD_MICROPHONE_DEVICE AFFECTD_CAMERA_RATE_HZ AFFECTD_CAMERA_WIDTH AFFECTD_CAMERA_HEIGHT
}
