# The scenarios, one function each: `sh scenarios.sh NAME…`, or `all`. A scenario starts with both virtual devices plugged in and
# no affectd running, and leaves the guest in that state.
# shellcheck shell=dash source=tests/hil/guest/lib.sh
. /hil/lib.sh
# shellcheck source=tests/hil/guest/names.sh
. /hil/names.sh
# shellcheck source=tests/hil/guest/messages.sh
. /hil/messages.sh

plug_vivid() { echo vivid.0 >/sys/bus/platform/drivers/vivid/bind; }
vivid_is_plugged_in() { [ -e /sys/bus/platform/drivers/vivid/vivid.0 ]; }
unplug_vivid() { echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind; }
find_vivid() { # sets $vivid to its node
    vivid=
    for node in /dev/video*; do
        [ "$(cut -c1-5 "/sys/class/video4linux/${node#/dev/}/name" 2>/dev/null)" = vivid ] && vivid=$node
    done
    [ -n "$vivid" ]
}
load_vivid() { # PLANES: 1 for one buffer an image, 2 for one a plane
    load vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0 no_error_inj=1 multiplanar="$1"
    sleep 1
    find_vivid
}
plug_card() { echo snd_aloop.0 >/sys/bus/platform/drivers/snd_aloop/bind; }
unplug_card() { echo snd_aloop.0 >/sys/bus/platform/drivers/snd_aloop/unbind; }

# vivid draws a test image, which is slow on an emulated processor: the image is small, and the rate low.
use_vivid() {
    export AFFECTD_CAMERA_DEVICE=$vivid AFFECTD_CAMERA_WIDTH=320 AFFECTD_CAMERA_HEIGHT=180 AFFECTD_CAMERA_RATE_HZ=10
}
use_loopback() {
    export AFFECTD_CAMERA_DEVICE=$camera AFFECTD_CAMERA_RATE_HZ=10
}
use_card() { export AFFECTD_MICROPHONE_DEVICE=hw:CARD=Loopback,DEV=1; }

face_and_voice() { # both devices work: an estimate uses face and voice
    use_loopback && use_card
    feed_camera 10 && feed_microphone
    sleep 1
    start_affectd
    await_state camera running 20 && await_state microphone running 20 || return 1
    await_line '"modalities":\["face","voice"\]' 30 || return 1
    stop_affectd
    grep -E "camera running|microphone running|$totals" $work/log | sed 's/^/    /'
    [ "$ended" = 0 ]
}

camera_stalls() { # it stays open, but sends no frame for 5 s
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
    if grep -q '"camera":"running"' $work/health || [ "$(wc -l <$work/log)" -gt "$marked" ]; then
        echo "    the camera does not stay stalled"
        return 1
    fi
    kill -CONT $feeder
    recovers camera && always_since "$from" '"voice":{'
}

camera_absent_at_start() { # it is plugged in 2 s after affectd has reported it as absent
    use_vivid && use_card
    unplug_vivid
    start_affectd
    await_state camera absent 20 && await_line '"voice":{' 10 || { plug_vivid; return 1; }
    from=$(lines)
    sleep 2
    plug_vivid
    recovers camera && always_since "$from" '"voice":{'
}

camera_unplugged() { # it is pulled for 10 s
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

camera_loose_cable() { # it is unplugged and plugged in ten times: the log stays short, and its last line is the present state
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
    await_health '"camera":"running"' 5 && await "camera running.*$changes_not_logged" 30 || return 1
    logged=$(grep -c "[]] camera " $work/log)
    echo "    $logged lines of the camera in the log"
    [ "$logged" -ge 2 ] && [ "$logged" -le 12 ] && always_since "$from" '"voice":{'
}

multi_planar_camera() { # each plane has a buffer of its own; it is pulled for 2 s
    rmmod vivid && load_vivid 2 || return 1
    use_vivid && use_card
    export AFFECTD_CAMERA_FORMAT=NM12
    start_affectd
    await "camera running.*NM12" 20 && await_line '"voice":{' 10 && await_health '"frames":[1-9]' 5
    works=$?
    unplug_vivid
    await_state camera absent 5 || works=1
    sleep 2
    mark
    plug_vivid
    recovers camera || works=1
    stop_affectd
    grep -E "camera running" $work/log | sed 's/^/    /'
    rmmod vivid && load_vivid 1 && [ $works = 0 ] && [ "$ended" = 0 ]
}

microphone_unplugged() { # it is pulled for 10 s
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

microphone_absent_at_start() { # it is plugged in 2 s after affectd has reported it as absent
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

both_unplugged() { # camera and microphone are pulled: estimates without a modality continue
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

camera_slower_than_claimed() { # it claims 30 frames per second and sends 5
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

process_stopped() { # the affectd process is stopped for 3 s: nothing old is sent afterwards, and the loss is counted
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
    await "$process_paused" 5 || return 1
    until tail -n +$((from + 2)) $work/lines | grep -q '"modalities":\["face","voice"\]'; do sleep 0.1; done
    took=$(since "$continued")
    echo "HIL RECOVERED both $took"
    within 2 || return 1
    sleep 1
    stop_affectd
    grep "$totals" $work/log | sed 's/^/    /'
    grep -q "$overruns_counted" $work/log
}

camera_busy() { # another process uses it
    use_vivid && use_card
    AFFECTD_MICROPHONE_DEVICE=off /hil/affectd run >/dev/null 2>$work/holder &
    feeder=$!
    until grep -q "camera running" $work/holder 2>/dev/null; do sleep 0.2; done
    start_affectd
    await_state camera absent 20 && await "$device_busy" 1 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    sleep 2
    kill $feeder
    wait $feeder
    recovers camera && always_since "$from" '"voice":{'
}

camera_forbidden() { # affectd runs as a user without permission; the permission is given later
    use_vivid && use_card
    chmod 600 "$vivid"
    chmod 666 /dev/snd/*
    : >$work/log && : >$work/lines && chmod 777 $work && chmod 666 $work/log $work/lines
    su -s /bin/sh nobody -c "exec /hil/affectd run --output stdout --output serial:$work/port >$work/lines 2>$work/log" &
    pid=$!
    await_state camera absent 20 && await "$device_forbidden" 1 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    sleep 2
    chmod 666 "$vivid"
    recovers camera && always_since "$from" '"voice":{'
}

microphone_forbidden() { # the same for the microphone
    use_loopback && use_card
    feed_camera 10
    sleep 1
    chmod 600 /dev/snd/*
    chmod 666 "$camera"
    : >$work/log && : >$work/lines && chmod 777 $work && chmod 666 $work/log $work/lines
    su -s /bin/sh nobody -c "exec /hil/affectd run --output stdout --output serial:$work/port >$work/lines 2>$work/log" &
    pid=$!
    await_state microphone absent 20 && await "microphone absent.*$device_forbidden" 1 && await_line '"face":{' 30 || return 1
    from=$(lines)
    sleep 2
    chmod 666 /dev/snd/*
    recovers microphone && always_since "$from" '"face":{'
}

camera_format_changed() { # it comes back with another pixel format and size
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

clock_stepped() { # the system clock is set forward by an hour: nothing changes
    use_loopback && use_card
    feed_camera 10
    sleep 1
    start_affectd
    await_state camera running 20 && await_line '"voice":{' 10 || return 1
    from=$(lines)
    date -s "@$(($(date +%s) + 3600))" >/dev/null
    sleep 2
    always_since "$from" '"voice":{' || return 1
    if grep -qE "camera (stalled|absent)|microphone (stalled|absent)|$process_paused" $work/log; then return 1; fi
}

busy_processor() { # six other processes load the processor: affectd analyses fewer faces per second until they end
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
    # shellcheck disable=SC2086  # This is a list of process ids.
    kill $others
    [ $lowered = 0 ] && await_health '"face_rate_hz":5.0' 60
    raised=$?
    grep "$face_rate_changed" $work/log | sed 's/^/    /'
    [ $raised = 0 ]
}

not_a_camera() { # the configured device exists and is not a camera: affectd ends instead of trying again
    export AFFECTD_CAMERA_DEVICE=/dev/null
    start_affectd
    wait $pid
    code=$?
    echo "    exit code $code: $(tail -n 1 $work/log)"
    [ $code = 3 ]
}

serial_lines() { # lines on a UART and frames on a USB port, read by the host; the USB cable is pulled for 5 s
    use_loopback && use_card
    feed_camera 10
    sleep 1
    start_affectd --output "serial:$uart?wire=json" --output "serial:$usb?wire=frame"
    await_state camera running 20 && await_line '"face":{' 30 || return 1
    from=$(lines)
    sleep 4
    host device_del cable
    await "$usb: $port_gone" 10 || return 1
    sleep 5
    mark
    host device_add usb-serial,chardev=ftdi,id=cable
    until [ -e $usb ] || [ "$(since "$began" | cut -d. -f1)" -ge 30 ]; do sleep 0.1; done
    await "$usb: $port_reopened" 5 || return 1
    echo "HIL RECOVERED $usb $took"
    within 2 && always_since "$from" '"face":{' || return 1
    sleep 3
    stop_affectd
    # The driver sends its remaining bytes when the port is closed.
    echo "HIL SERIAL $(lines)"
    [ $ended = 0 ]
}

pause_button() { # a button on a GPIO line, which QEMU presses for a tenth of a second: it pauses, and ends the pause
    use_loopback && use_card
    feed_camera 10
    sleep 1
    AFFECTD_PRIVACY_BUTTON='gpiochip0:3?active=high' && export AFFECTD_PRIVACY_BUTTON
    start_affectd
    unset AFFECTD_PRIVACY_BUTTON
    await_state camera running 20 || return 1
    mark
    host system_powerdown
    await "$button_pauses" 5 && await_state camera paused 5 && await_state microphone paused 5 || return 1
    sleep 1
    mark
    host system_powerdown
    await "$button_resumes" 5 && recovers camera || return 1
    stop_affectd
    [ $ended = 0 ]
}

serial_refused() { # a port that cannot be used ends affectd at once with one line
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
        refused "$device_forbidden" su -s /bin/sh nobody -c "exec /hil/affectd $command" || return 1
    done
    refused "${baud_rate_refused}4000000" /hil/affectd run --output "serial:$uart?baud=4000000" || return 1
    : >$work/log
    # This process holds the port. It waits for a camera and does not use the microphone.
    AFFECTD_CAMERA_DEVICE=/dev/video-none AFFECTD_MICROPHONE_DEVICE=off /hil/affectd run 2>/dev/null &
    feeder=$!
    sleep 2
    for command in run check; do
        refused ".*$device_busy" /hil/affectd $command || return 1
    done
}

devices_command() { # `affectd devices` lists the camera and the microphone
    feed_camera 10
    sleep 1
    /hil/affectd devices | sed 's/^/    /'
    /hil/affectd devices --json | grep -q '"device":"hw:CARD=Loopback,DEV=0"'
}

check_command() { # `affectd check` detects the face and the sound
    use_loopback && use_card
    feed_camera 10 && feed_microphone
    sleep 1
    /hil/affectd check 2>$work/log | tee $work/lines | sed 's/^/    /'
    grep -q "ok   camera: $face_found" $work/lines && grep -q "ok   microphone: level" $work/lines
}

record_sync() { # SECONDS NAME: records flashes and beeps, which the host compares
    use_loopback && use_card
    export AFFECTD_CAMERA_WIDTH=160 AFFECTD_CAMERA_HEIGHT=120 AFFECTD_CAMERA_RATE_HZ=25
    /hil/feed both $camera GREY 160 120 25 /hil/sync.grey hw:CARD=Loopback,DEV=0 48000 /hil/sync.s16 2>>$work/feed.log &
    feeder=$!
    sleep 1
    /hil/affectd record --i-have-consent $work/clip.mkv 2>$work/log &
    pid=$!
    sleep "$1"
    # A recording must be readable even if the process is killed.
    kill -KILL $pid
    wait $pid
    give $work/clip.mkv "$2"
    rm $work/clip.mkv
}
audio_video_sync() { record_sync 20 audio_video_sync.mkv; }  # flashes and beeps of a recording coincide
audio_video_sync_ten_minutes() { record_sync 600 audio_video_sync_ten_minutes.mkv; }

# A USB webcam with its own microphone, through the kernel's drivers for real ones. The other cameras are gone.
plug_webcam() { # [OPTION…]
    /hil/webcam "${images:-/hil/face.mjpg}" "${sound:-/hil/face.s16}" "$@" 2>>$work/feed.log &
    feeder=$!
}
unplug_webcam() {
    kill -KILL "$feeder"
    wait "$feeder" 2>/dev/null
}
use_webcam() { # [OPTION…]
    export AFFECTD_CAMERA_DEVICE=auto AFFECTD_CAMERA_RATE_HZ=30 AFFECTD_MICROPHONE_DEVICE=hw:CARD=Webcam,DEV=0
    unplug_vivid
    plug_webcam "$@"
}

usb_face_and_voice() { # both functions of the webcam work
    use_webcam
    start_affectd
    await_state camera running 30 && await_state microphone running 30 || return 1
    await_line '"modalities":\["face","voice"\]' 30 || return 1
    stop_affectd
    grep -E "camera running|microphone running|$totals" $work/log | sed 's/^/    /'
    [ "$ended" = 0 ]
}

usb_unplugged() { # the cable is pulled in the middle of a transfer, for 5 s, and then ten times for a moment
    use_webcam
    start_affectd
    await_state camera running 30 && await_state microphone running 30 && await_line '"modalities":\["face","voice"\]' 30 || return 1
    from=$(lines)
    unplug_webcam
    await_state camera absent 5 && await_state microphone absent 5 || return 1
    sleep 5
    mark
    plug_webcam
    recovers camera && recovers microphone || return 1
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        unplug_webcam
        sleep 0.3
        plug_webcam
        sleep 2
    done
    await_health '"camera":"running"' 10 && await_health '"microphone":"running"' 10 || return 1
    await_line '"modalities":\["face","voice"\]' 30 && always_since "$from" '"schema":1'
}

usb_renumbered() { # its node has another number when it comes back, because another program still has the old one open
    use_webcam
    start_affectd
    await_state camera running 30 && await_line '"face":{' 30 || return 1
    node() { grep "camera running" $work/log | grep -o '/dev/video[0-9]*' | tail -n 1; }
    before=$(node)
    exec 8<"$before"
    unplug_webcam
    await_state camera absent 5 || return 1
    sleep 1
    mark
    plug_webcam
    recovers camera && await_line '"face":{' 30 || return 1
    exec 8<&-
    after=$(node)
    echo "    $before, then $after"
    [ -n "$after" ] && [ "$before" != "$after" ]
}

usb_torn_images() { # every third image ends in the middle, and every fifth is empty: the others are used
    use_webcam torn=3 empty=5
    start_affectd
    await_state camera running 30 && await_line '"face":{' 30 || return 1
    from=$(lines)
    sleep 5
    always_since "$from" '"face":{'
}

usb_dark() { # in the dark it sends 7 images a second instead of 30
    use_webcam rate=7
    start_affectd
    await_state camera running 30 && await "at 30 Hz" 1 && await_line '"face":{' 30 || return 1
    from=$(lines)
    mark
    sleep 5
    if tail -n +$((marked + 1)) $work/log | grep -qE "camera (stalled|absent)"; then return 1; fi
    always_since "$from" '"face":{'
}

usb_silent_mode() { # it accepts the requested mode and never delivers in it: another is used
    use_webcam silent=1
    start_affectd
    await_state camera running 60 && await_line '"face":{' 30 || return 1
    grep "camera running" $work/log | sed 's/^/    /'
    grep -q "320×240" $work/log
}

usb_refused_mode() { # the requested mode gets no bandwidth: another is used
    use_webcam refuse=1
    start_affectd
    await_state camera running 60 && await_line '"face":{' 30 || return 1
    grep "camera running" $work/log | sed 's/^/    /'
    grep -q "320×240" $work/log
}

record_usb_sync() { # SECONDS NAME: records flashes and beeps of a webcam whose sound clock is 200 ppm too fast
    images=/hil/sync.mjpg sound=/hil/sync.s16
    use_webcam rate=25 drift=200
    images='' sound=''
    sleep 3
    /hil/affectd record --i-have-consent $work/clip.mkv 2>$work/log &
    pid=$!
    sleep "$1"
    kill -KILL $pid
    wait $pid
    give $work/clip.mkv "$2"
    rm $work/clip.mkv
}
usb_sync() { record_usb_sync 20 audio_video_sync_usb.mkv; } # flashes and beeps of a recording coincide
usb_sync_ten_minutes() { record_usb_sync 600 audio_video_sync_usb_ten_minutes.mkv; }

load virtio_pci
load virtio_blk
load videodev 2>/dev/null
# With exclusive_caps=1, v4l2loopback no longer accepts frames after a query between two feeders.
load v4l2loopback video_nr=10 card_label=Loopback exclusive_caps=0 max_buffers=4
load_vivid 1
load snd-aloop pcm_substreams=1 index=0 id=Loopback
load xhci-pci
load ftdi_sio
load vhci-hcd
load uvcvideo
load snd-usb-audio
sleep 1
usb=/dev/ttyUSB0
case $(uname -m) in
aarch64) uart=/dev/ttyAMA1 && [ -e $uart ] || uart=/dev/ttyS0 ;;
*) uart=/dev/ttyS1 ;;
esac
echo "    kernel $(uname -r), cameras $(echo /dev/video*), vivid is $vivid, serial ports $uart $usb, cards: $(head -n 1 /proc/asound/cards)"
mkdir -p $work

# shellcheck disable=SC2086  # These are lists of names.
[ $# -gt 0 ] || set -- $short
# shellcheck disable=SC2086
[ "$*" != all ] || set -- $short $long
failed=
for name; do scenario "$name"; done
[ -z "$failed" ] || echo "HIL FAILED:$failed"
[ -z "$failed" ]
