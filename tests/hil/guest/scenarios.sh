# Life with devices, one function a scenario; `sh scenarios.sh NAME…`. Each starts from both virtual devices plugged in and
# nothing running, and leaves it so.
. /hil/lib.sh

short="both camera_stalls camera_late camera_unplugged microphone_unplugged microphone_late both_unplugged slow_camera
       stopped camera_busy camera_forbidden format_gone clock_stepped not_a_camera listed checked in_step"
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
    await "camera running" 20 && await "microphone running" 20 || return 1
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
    await "camera running" 20 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    kill -STOP $feeder
    await "camera stalled" 5 || return 1
    sleep 5
    mark
    kill -CONT $feeder
    await "camera running" 10 && within 2 && always_since "$from" '"voice":{'
}

camera_late() { # not there at the start
    use_vivid && use_card
    unplug_vivid
    start_affectd
    await "camera absent" 20 && await_line '"voice":{' 10 || { plug_vivid; return 1; }
    sleep 2
    plug_vivid
    await "camera running" 10 && within 2
}

camera_unplugged() { # for 10 s
    use_vivid && use_card
    start_affectd
    await "camera running" 20 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    unplug_vivid
    await "camera absent" 5 || { plug_vivid; return 1; }
    sleep 10
    mark
    plug_vivid
    await "camera running" 10 && within 2 && always_since "$from" '"voice":{'
}

microphone_unplugged() { # for 10 s
    use_loopback && use_card
    feed_camera 10
    sleep 1
    start_affectd
    await "microphone running" 20 && await_line '"face":{' 30 || return 1
    from=$(lines)
    unplug_card
    await "microphone absent" 5 || { plug_card; return 1; }
    sleep 10
    mark
    plug_card
    await "microphone running" 10 && within 2 && always_since "$from" '"face":{'
}

microphone_late() {
    use_loopback && use_card
    feed_camera 10
    sleep 1
    unplug_card
    start_affectd
    await "microphone absent" 20 && await_line '"face":{' 30 || { plug_card; return 1; }
    plug_card
    await "microphone running" 10 && within 2
}

both_unplugged() {
    use_vivid && use_card
    start_affectd
    await "camera running" 20 && await "microphone running" 20 || return 1
    unplug_vivid
    unplug_card
    await "camera absent" 5 && await "microphone absent" 5
    lost=$?
    from=$(lines)
    sleep 2
    always_since "$from" '"modalities":\[\]' || lost=1
    mark
    plug_card
    plug_vivid
    [ $lost = 0 ] || return 1
    await "camera running" 10 && within 2 && await "microphone running" 10 && within 2
}

slow_camera() { # 5 pictures a second instead of 30
    use_loopback && use_card
    feed_camera 5
    sleep 1
    start_affectd
    await "camera running" 20 || return 1
    sleep 4
    if grep -q "camera stalled" $work/log; then return 1; fi
    await_line '"face":{' 30
}

stopped() { # the process, for 3 s
    use_loopback && use_card
    feed_camera 10 && feed_microphone
    sleep 1
    start_affectd
    await "camera running" 20 && await_line '"modalities":\["face","voice"\]' 30 || return 1
    kill -STOP $pid
    sleep 3
    kill -CONT $pid
    await "stood still" 5 && within 2 || return 1
    sleep 1
    await_line '"modalities":\["face","voice"\]' 10 || return 1
    within 2 || return 1
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
    await "in use by another program" 20 || return 1
    kill $feeder
    wait $feeder
    await "camera running" 10 && within 2
}

camera_forbidden() {
    use_vivid && use_card
    chmod 600 "$vivid"
    chmod 666 /dev/snd/*
    : >$work/log && : >$work/lines && chmod 777 $work && chmod 666 $work/log $work/lines
    su -s /bin/sh nobody -c "exec /hil/affectd run >$work/lines 2>$work/log" &
    pid=$!
    await "permission denied" 20 || return 1
    chmod 666 "$vivid"
    await "camera running" 10 && within 2
}

format_gone() { # comes back with another format and size
    use_loopback && use_card
    feed_camera 10
    sleep 1
    start_affectd
    await "camera running" 20 || return 1
    kill $feeder
    wait $feeder 2>/dev/null
    await "camera stalled\|camera absent" 5 || return 1
    sleep 2
    mark
    dd if=/dev/urandom of=$work/noise bs=153600 count=5 2>/dev/null
    feed_camera 10 YUYV 320 240 $work/noise
    await "camera running" 10 && within 2 || return 1
    grep -q "YUYV 320×240" $work/log
}

clock_stepped() { # by an hour
    use_loopback && use_card
    feed_camera 10
    sleep 1
    start_affectd
    await "camera running" 20 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    date -s "@$(($(date +%s) + 3600))" >/dev/null
    sleep 2
    always_since "$from" '"voice":{' || return 1
    if grep -qE "camera (stalled|absent)|microphone (stalled|absent)|stood still" $work/log; then return 1; fi
    # Estimates go on every 0.2 s of their own clock.
    sed 's/.*"t":\([0-9.]*\).*/\1/' $work/lines | awk 'NR > 1 && ($1 - last > 0.21 || $1 <= last) { bad++ } { last = $1 } END { exit bad > 0 }'
}

not_a_camera() { # named, there, and never a camera: the only time affectd gives up
    export AFFECTD_CAMERA_DEVICE=/dev/null
    start_affectd
    wait $pid
    code=$?
    echo "    exit code $code: $(tail -n 1 $work/log)"
    [ $code = 3 ]
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
sleep 1
vivid=
for node in /dev/video*; do
    [ "$(cat "/sys/class/video4linux/${node#/dev/}/name" 2>/dev/null | cut -c1-5)" = vivid ] && vivid=$node
done
echo "    kernel $(uname -r), cameras $(echo /dev/video*), vivid is $vivid, cards: $(cat /proc/asound/cards | head -n 1)"
mkdir -p $work

[ $# -gt 0 ] || set -- $short
[ "$*" != all ] || set -- $short $long
failed=
for name; do scenario "$name"; done
[ -z "$failed" ] || echo "HIL FAILED:$failed"
[ -z "$failed" ]
