# Life with devices, one function a scenario; `sh scenarios.sh NAME…`. Each starts from both virtual devices plugged in and
# nothing running, and leaves it so.
. /hil/lib.sh

short="both camera_stalls camera_late camera_unplugged loose_plug microphone_late microphone_unplugged both_unplugged slow_camera
       stopped camera_busy camera_forbidden microphone_forbidden format_gone clock_stepped busy_processor not_a_camera serial_lines serial_refused
       listed checked in_step"
long="in_step_ten_minutes"

plug_vivid() { echo vivid.0 >/sys/bus/platform/drivers/vivid/bind; }
unplug_vivid() { echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind; }
plug_card() { echo snd_aloop.0 >/sys/bus/platform/drivers/snd_aloop/bind; }
unplug_card() { echo snd_aloop.0 >/sys/bus/platform/drivers/snd_aloop/unbind; }

# vivid paints a test picture, which costs the emulated processor much: small, and few a second.
use_vivid() {
    export AFFECTD_CAMERA_DEVICE=$vivid AFFECTD_CAMERA_WIDTH=320 AFFECTD_CAMERA_HEIGHT=180 AFFECTD_CAMERA_RATE_HZ=10
}
use_loopback() {
    export AFFECTD_CAMERA_DEVICE=$camera AFFECTD_CAMERA_RATE_HZ=10
}
use_card() { export AFFECTD_MICROPHONE_DEVICE=hw:CARD=Loopback,DEV=1; }

both() { # a face seen and a voice heard
    use_loopback && use_card
    feed_camera 10 && feed_microphone
    sleep 1
    start_affectd
    await_state camera running 20 && await_state microphone running 20 || return 1
    await_line '"modalities":\["face","voice"\]' 30 || return 1
    stop_affectd
    grep -E 'camera running|microphone running|estimates;' $work/log | sed 's/^/    /'
    [ "$ended" = 0 ]
}

camera_stalls() { # open, but nothing comes for 5 s
    use_loopback && use_card
    feed_camera 10
    sleep 1
    start_affectd
    await_state camera running 20 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    kill -STOP $feeder
    await_state camera stalled 5 || return 1
    mark
    sleep 5
    if grep -q '"camera":"running"' $work/health || [ "$(wc -l <$work/log)" -gt $marked ]; then
        echo "    it does not stay stalled"
        return 1
    fi
    kill -CONT $feeder
    recovers camera && always_since "$from" '"voice":{'
}

camera_late() { # not there at the start
    use_vivid && use_card
    unplug_vivid
    start_affectd
    await_state camera absent 20 && await_line '"voice":{' 10 || { plug_vivid; return 1; }
    from=$(lines)
    sleep 2
    plug_vivid
    recovers camera && always_since "$from" '"voice":{'
}

camera_unplugged() { # for 10 s
    use_vivid && use_card
    start_affectd
    await_state camera running 20 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    unplug_vivid
    await_state camera absent 5 || { plug_vivid; return 1; }
    sleep 10
    mark
    plug_vivid
    recovers camera && always_since "$from" '"voice":{'
}

loose_plug() { # makes contact and loses it, over and over: the journal stays short, and ends with how it is
    use_vivid && use_card
    start_affectd
    await_state camera running 20 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        unplug_vivid
        sleep 0.3
        plug_vivid
        sleep 1
    done
    mark
    await_health '"camera":"running"' 5 && await "camera running.*were not logged" 30 || return 1
    said=$(grep -c "supervise. camera" $work/log)
    echo "    $said lines in the log"
    [ "$said" -le 12 ] && always_since "$from" '"voice":{'
}

microphone_unplugged() { # for 10 s
    use_loopback && use_card
    feed_camera 10
    sleep 1
    start_affectd
    await_state microphone running 20 && await_line '"face":{' 30 || return 1
    from=$(lines)
    unplug_card
    await_state microphone absent 5 || { plug_card; return 1; }
    sleep 10
    mark
    plug_card
    recovers microphone && always_since "$from" '"face":{'
}

microphone_late() {
    use_loopback && use_card
    feed_camera 10
    sleep 1
    unplug_card
    start_affectd
    await_state microphone absent 20 && await_line '"face":{' 30 || { plug_card; return 1; }
    from=$(lines)
    sleep 2
    plug_card
    recovers microphone && always_since "$from" '"face":{'
}

both_unplugged() {
    use_vivid && use_card
    start_affectd
    await_state camera running 20 && await_state microphone running 20 || return 1
    unplug_vivid
    unplug_card
    await_state camera absent 5 && await_state microphone absent 5
    lost=$?
    sleep 1
    from=$(lines)
    sleep 2
    always_since "$from" '"modalities":\[\]' || lost=1
    mark
    plug_card
    plug_vivid
    [ $lost = 0 ] || return 1
    recovers camera && recovers microphone
}

slow_camera() { # says 30 pictures a second and sends 5
    use_loopback && use_card
    export AFFECTD_CAMERA_RATE_HZ=30
    feed_camera 30:5
    sleep 1
    start_affectd
    await_state camera running 20 && await "at 30 Hz" 1 && await_line '"face":{' 30 || return 1
    from=$(lines)
    sleep 5
    if grep -qE "camera (stalled|absent)" $work/log; then return 1; fi
    always_since "$from" '"face":{'
}

stopped() { # the process, for 3 s
    use_loopback && use_card
    feed_camera 10 && feed_microphone
    sleep 1
    start_affectd
    await_state camera running 20 && await_line '"modalities":\["face","voice"\]' 30 || return 1
    kill -STOP $pid
    sleep 3
    from=$(lines)
    continued=$(now)
    kill -CONT $pid
    await "stood still" 5 || return 1
    until tail -n +$((from + 2)) $work/lines | grep -q '"modalities":\["face","voice"\]'; do sleep 0.1; done
    took=$(since "$continued")
    echo "HIL RECOVERED both $took"
    within 2 || return 1
    sleep 1
    stop_affectd
    grep "estimates;" $work/log | sed 's/^/    /'
    grep -q "overruns" $work/log
}

camera_busy() { # in use by another process
    use_vivid && use_card
    AFFECTD_MICROPHONE_DEVICE=off /hil/affectd run >/dev/null 2>$work/holder &
    feeder=$!
    until grep -q "camera running" $work/holder 2>/dev/null; do sleep 0.2; done
    start_affectd
    await_state camera absent 20 && await "in use by another program" 1 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    sleep 2
    kill $feeder
    wait $feeder
    recovers camera && always_since "$from" '"voice":{'
}

camera_forbidden() {
    use_vivid && use_card
    chmod 600 "$vivid"
    chmod 666 /dev/snd/*
    : >$work/log && : >$work/lines && chmod 777 $work && chmod 666 $work/log $work/lines
    su -s /bin/sh nobody -c "exec /hil/affectd run --output stdout --output serial:$work/port >$work/lines 2>$work/log" &
    pid=$!
    await_state camera absent 20 && await "permission denied" 1 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    sleep 2
    chmod 666 "$vivid"
    recovers camera && always_since "$from" '"voice":{'
}

microphone_forbidden() {
    use_loopback && use_card
    feed_camera 10
    sleep 1
    chmod 600 /dev/snd/*
    chmod 666 "$camera"
    : >$work/log && : >$work/lines && chmod 777 $work && chmod 666 $work/log $work/lines
    su -s /bin/sh nobody -c "exec /hil/affectd run --output stdout --output serial:$work/port >$work/lines 2>$work/log" &
    pid=$!
    await_state microphone absent 20 && await "microphone absent.*permission denied" 1 && await_line '"face":{' 30 || return 1
    from=$(lines)
    sleep 2
    chmod 666 /dev/snd/*
    recovers microphone && always_since "$from" '"face":{'
}

format_gone() { # comes back with another format and size
    use_loopback && use_card
    feed_camera 10
    sleep 1
    start_affectd
    await_state camera running 20 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    kill $feeder
    wait $feeder 2>/dev/null
    await_health '"camera":"\(stalled\|absent\)"' 5 || return 1
    sleep 2
    dd if=/dev/urandom of=$work/noise bs=153600 count=5 2>/dev/null
    mark
    feed_camera 10 YUYV 320 240 $work/noise
    recovers camera && grep -q "YUYV 320×240" $work/log && always_since "$from" '"voice":{'
}

clock_stepped() { # by an hour
    use_loopback && use_card
    feed_camera 10
    sleep 1
    start_affectd
    await_state camera running 20 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    date -s "@$(($(date +%s) + 3600))" >/dev/null
    sleep 2
    always_since "$from" '"voice":{' || return 1
    if grep -qE "camera (stalled|absent)|microphone (stalled|absent)|stood still" $work/log; then return 1; fi
}

busy_processor() { # others want it, too: fewer faces are looked at, until there is room again
    use_loopback && use_card
    feed_camera 10
    sleep 1
    start_affectd
    await_state camera running 20 && await_health '"face_rate_hz":5.0' 20 || return 1
    others=
    for _ in 1 2 3 4 5 6; do
        (while :; do :; done) &
        others="$others $!"
    done
    await_health '"face_rate_hz":[0-4]' 20
    lowered=$?
    kill $others
    [ $lowered = 0 ] && await_health '"face_rate_hz":5.0' 60
    raised=$?
    grep "looks at" $work/log | sed 's/^/    /'
    [ $raised = 0 ]
}

not_a_camera() { # named, there, and never a camera: the only time affectd gives up
    export AFFECTD_CAMERA_DEVICE=/dev/null
    start_affectd
    wait $pid
    code=$?
    echo "    exit code $code: $(tail -n 1 $work/log)"
    [ $code = 3 ]
}

serial_lines() { # a UART as lines and a USB port as frames, which the host reads; the USB cable pulled for 5 s
    use_loopback && use_card
    feed_camera 10
    sleep 1
    start_affectd --output "serial:$uart?wire=json" --output "serial:$usb?wire=frame"
    await_state camera running 20 && await_line '"face":{' 30 || return 1
    from=$(lines)
    sleep 4
    host device_del cable
    await "$usb: gone" 10 || return 1
    sleep 5
    mark
    host device_add usb-serial,chardev=ftdi,id=cable
    until [ -e $usb ] || [ "$(since "$began" | cut -d. -f1)" -ge 30 ]; do sleep 0.1; done
    await "$usb: open again" 5 || return 1
    echo "HIL RECOVERED $usb $took"
    within 2 && always_since "$from" '"face":{' || return 1
    sleep 3
    stop_affectd
    # The driver hands over what it has left when the port is closed.
    echo "HIL SERIAL $(lines)"
    [ $ended = 0 ]
}

serial_refused() { # ports that will not do are said at once, one line each
    refused() { # REASON COMMAND…
        reason=$1 && shift
        "$@" >/dev/null 2>$work/log
        code=$?
        echo "    exit code $code: $(tail -n 1 $work/log)"
        [ $code = 5 ] && tail -n 1 $work/log | grep -q "^affectd: $uart: $reason" && [ "$(grep -c "^affectd:" $work/log)" = 1 ]
    }
    use_card
    export AFFECTD_CAMERA_DEVICE=off AFFECTD_OUTPUT=serial:$uart
    chmod 600 $uart
    chmod 666 /dev/snd/*
    for command in run check; do
        refused "permission denied" su -s /bin/sh nobody -c "exec /hil/affectd $command" || return 1
    done
    refused "does not take baud=4000000" /hil/affectd run --output "serial:$uart?baud=4000000" || return 1
    : >$work/log
    # It waits for a camera, and leaves the microphone to the others.
    AFFECTD_CAMERA_DEVICE=/dev/video-none AFFECTD_MICROPHONE_DEVICE=off /hil/affectd run 2>/dev/null &
    feeder=$!
    sleep 2
    for command in run check; do
        refused "is in use by another program" /hil/affectd $command || return 1
    done
}

listed() { # affectd devices
    feed_camera 10
    sleep 1
    /hil/affectd devices | sed 's/^/    /'
    /hil/affectd devices --json | grep -q '"device":"hw:CARD=Loopback,DEV=0"'
}

checked() { # affectd check, with a face and a voice
    use_loopback && use_card
    feed_camera 10 && feed_microphone
    sleep 1
    /hil/affectd check 2>$work/log | tee $work/lines | sed 's/^/    /'
    grep -q "ok   camera: a face is in view" $work/lines && grep -q "ok   microphone: level" $work/lines
}

record_sync() { # SECONDS: a recording of flashes and beeps, for the host to judge
    use_loopback && use_card
    export AFFECTD_CAMERA_WIDTH=160 AFFECTD_CAMERA_HEIGHT=120 AFFECTD_CAMERA_RATE_HZ=25
    /hil/feed both $camera GREY 160 120 25 /hil/sync.grey hw:CARD=Loopback,DEV=0 48000 /hil/sync.s16 2>>$work/feed.log &
    feeder=$!
    sleep 1
    /hil/affectd record --i-have-consent $work/clip.mkv 2>$work/log &
    pid=$!
    sleep "$1"
    # Nothing but the end of the process may be needed for a clean file.
    kill -KILL $pid
    wait $pid
    give $work/clip.mkv "$2"
    rm $work/clip.mkv
}
in_step() { record_sync 20 in_step.mkv; }
in_step_ten_minutes() { record_sync 600 in_step_ten_minutes.mkv; }

load virtio_pci
load virtio_blk
load videodev 2>/dev/null
# With exclusive_caps=1 it forgets that it takes pictures once somebody has asked between two feeders.
load v4l2loopback video_nr=10 card_label=Loopback exclusive_caps=0 max_buffers=4
load vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0 no_error_inj=1
load snd-aloop pcm_substreams=1 index=0 id=Loopback
load xhci-pci
load ftdi_sio
sleep 1
usb=/dev/ttyUSB0
case $(uname -m) in
aarch64) uart=/dev/ttyAMA1 && [ -e $uart ] || uart=/dev/ttyS0 ;;
*) uart=/dev/ttyS1 ;;
esac
vivid=
for node in /dev/video*; do
    [ "$(cat "/sys/class/video4linux/${node#/dev/}/name" 2>/dev/null | cut -c1-5)" = vivid ] && vivid=$node
done
echo "    kernel $(uname -r), cameras $(echo /dev/video*), vivid is $vivid, serial ports $uart $usb, cards: $(cat /proc/asound/cards | head -n 1)"
mkdir -p $work

[ $# -gt 0 ] || set -- $short
[ "$*" != all ] || set -- $short $long
failed=
for name; do scenario "$name"; done
[ -z "$failed" ] || echo "HIL FAILED:$failed"
[ -z "$failed" ]
