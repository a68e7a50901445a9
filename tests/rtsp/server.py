"""A network camera: serves a clip as rtsp://127.0.0.1:PORT/live with GStreamer's RTSP server.

    server.py PORT h264|mjpeg none|basic|digest CLIP

h264 comes with AAC, mjpeg with G.711. With basic or digest, it demands the user bob and the password s3cr3tword. CLIP is Matroska
with MJPEG and PCM. It prints `ready`.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402  (the versions come first)

USER, PASSWORD = "bob", "s3cr3tword"
VIDEO = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast bitrate=1500 key-int-max=30 ! "
    "rtph264pay name=pay0 pt=96 config-interval=1",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
}
AUDIO = {
    "h264": "avenc_aac ! aacparse ! rtpmp4gpay name=pay1 pt=97",
    "mjpeg": "audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1 pt=0",
}
QUEUE = "queue max-size-time=3000000000 max-size-bytes=0 max-size-buffers=0"


def demand_login(server, factory, method):
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth.new()
    if method == "basic":
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(USER, PASSWORD), token)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(USER, PASSWORD, token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role("viewer")
    for right in ("access", "construct"):
        permissions.add_permission_for_role("viewer", f"media.factory.{right}", True)
    factory.set_permissions(permissions)


def main():
    if len(sys.argv) == 2 and sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return
    if len(sys.argv) != 5 or sys.argv[2] not in VIDEO or sys.argv[3] not in ("none", "basic", "digest"):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    port, codec, login, clip = sys.argv[1:]
    Gst.init(None)
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_launch(
        f'( filesrc location="{clip}" ! matroskademux name=d '
        f"d.video_0 ! {QUEUE} ! jpegdec ! videoconvert ! video/x-raw,format=I420 ! {VIDEO[codec]} "
        f"d.audio_0 ! {QUEUE} ! audioconvert ! audioresample ! {AUDIO[codec]} )"
    )
    # All clients see the same instant, as with a camera.
    factory.set_shared(True)
    server = GstRtspServer.RTSPServer.new()
    server.set_service(port)
    if login != "none":
        demand_login(server, factory, login)
    server.get_mount_points().add_factory("/live", factory)
    if server.attach(None) == 0:
        sys.exit(f"server.py: port {port}: in use: end the program that uses it")
    print("ready", flush=True)
    GLib.MainLoop().run()


main()
