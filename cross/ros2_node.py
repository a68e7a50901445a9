#!/usr/bin/env python3
"""Publishes the estimates of affectd to ROS 2, as hri_msgs/Expression of ROS4HRI:

    python3 cross/ros2_node.py SOURCE [--ros-args …]

SOURCE is one of the Python package in cross/python, which must be installed or on PYTHONPATH: `mqtt://broker?device=NAME`,
`serial:/dev/ttyUSB0?wire=frame`, `-`. Parameters: `topic` (default /humans/faces/affectd/expression) and `frame_id`.
`--json` publishes the same fields as JSON in std_msgs/String, for systems without hri_msgs.

An estimate without face and voice is not published. The stamp is the time of arrival minus the latency, on ROS's clock.
"""

import contextlib
import json
import sys
import threading

import rclpy
from affectd_reader import Reader, SourceError
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

# Names of hri_msgs/Expression. It has none for contempt.
EXPRESSIONS = {
    "neutral": "neutral",
    "happiness": "happy",
    "surprise": "surprised",
    "sadness": "sad",
    "anger": "angry",
    "disgust": "disgusted",
    "fear": "scared",
}


class AffectdNode(Node):
    """One source, one topic."""

    def __init__(self, as_json):
        super().__init__("affectd")
        topic = self.declare_parameter("topic", "/humans/faces/affectd/expression").value
        self.frame_id = self.declare_parameter("frame_id", "").value
        if as_json:
            from std_msgs.msg import String as Message
        else:
            from hri_msgs.msg import Expression as Message
        self.as_json, self.message = as_json, Message
        self.publisher = self.create_publisher(Message, topic, 10)

    def publish(self, estimate):
        """Publishes an estimate that has values."""
        stamp = self.get_clock().now() - Duration(nanoseconds=(estimate.latency_ms or 0) * 1_000_000)
        values = {
            "expression": EXPRESSIONS.get(estimate.likely_expression, ""),
            "valence": estimate.valence,
            "arousal": estimate.arousal,
            "confidence": estimate.confidence,
        }
        if self.as_json:
            header = {"stamp": stamp.nanoseconds / 1e9, "frame_id": self.frame_id}
            self.publisher.publish(self.message(data=json.dumps({"header": header, **values})))
            return
        message = self.message(**values)
        message.header.stamp = stamp.to_msg()
        message.header.frame_id = self.frame_id
        self.publisher.publish(message)


def main():
    arguments = rclpy.utilities.remove_ros_args(sys.argv)[1:]
    as_json = "--json" in arguments
    sources = [argument for argument in arguments if argument != "--json"]
    if len(sources) != 1 or sources[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0 if sources and sources[0] in ("-h", "--help") else 2
    rclpy.init()
    try:
        reader = Reader(sources[0])
        node = AffectdNode(as_json)
    except (SourceError, ImportError) as error:
        print(f"ros2_node.py: {error}", file=sys.stderr)
        return 2
    # ROS answers questions about the node and its parameters in this thread.
    threading.Thread(target=spin, args=[node], daemon=True).start()
    try:
        for estimate in reader.estimates():
            if estimate.valence is not None:
                node.publish(estimate)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    node.get_logger().info(f"ended: {reader.counters}")
    rclpy.try_shutdown()
    return 0


def spin(node):
    """Until ROS shuts down."""
    with contextlib.suppress(ExternalShutdownException):
        rclpy.spin(node)


if __name__ == "__main__":
    sys.exit(main())
