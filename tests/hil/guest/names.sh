# The names of the scenarios. run.sh checks its arguments against them, and the guest runs `short` if it gets no names. .ci/hil
# runs `quick`, one of each kind, and .ci/nightly all.
# shellcheck shell=sh disable=SC2034  # The scripts that source this file use them.
quick="face_and_voice camera_stalls camera_unplugged multi_planar_camera both_unplugged camera_forbidden clock_stepped
       serial_lines check_command audio_video_sync usb_unplugged usb_torn_images usb_silent_mode"
short="face_and_voice camera_stalls camera_absent_at_start camera_unplugged camera_loose_cable multi_planar_camera
       microphone_absent_at_start microphone_unplugged both_unplugged camera_slower_than_claimed process_stopped
       camera_busy camera_forbidden microphone_forbidden camera_format_changed clock_stepped busy_processor not_a_camera
       serial_lines serial_refused devices_command check_command audio_video_sync
       usb_face_and_voice usb_unplugged usb_renumbered usb_torn_images usb_dark usb_silent_mode usb_refused_mode usb_sync"
long="audio_video_sync_ten_minutes usb_sync_ten_minutes"
# The emulated arm64 board has GPIO lines, and the PC has none.
case "${arch:-$(uname -m)}" in
arm64 | aarch64) short="$short pause_button" ;;
esac
