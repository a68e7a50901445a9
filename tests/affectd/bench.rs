//! The report of `affectd bench`.

use serde_json::Value;

use super::{affectd, models};

fn bench(arguments: &[&str]) -> Value {
    let output = affectd()
        .args(["bench", "--iterations", "1", "--json", "--models"])
        .arg(models())
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_shipped_graph_runs_completely_in_integers() {
    let report = bench(&[]);
    let graphs = report["graphs"].as_array().unwrap();
    assert_eq!(graphs.len(), 4);
    for graph in graphs {
        let name = &graph["name"];
        assert_eq!(graph["fallback_nodes"], serde_json::json!([]), "{name}");
        assert_eq!(
            (&graph["int8_share"], &graph["int8_mac_share"]),
            (&1.0.into(), &1.0.into()),
            "{name}"
        );
        for positive in ["median_ms", "p99_ms", "macs", "macs_per_s"] {
            assert!(graph[positive].as_f64() > Some(0.0), "{name}: {positive}");
        }
        assert!(graph["kernel"].is_string());
    }
    assert!(report["peak"]["macs_per_s"].as_f64() > Some(0.0));
    let pipeline = &report["pipeline"];
    for stage in [
        "decode_ms",
        "detect_ms",
        "track_ms",
        "audio_ms_per_s",
        "estimate_ms",
        "cpu_s_per_s",
        "peak_rss_mib",
    ] {
        assert!(pipeline[stage].is_number(), "{stage}: {pipeline}");
    }
}

#[test]
fn a_graph_that_is_not_quantized_runs_in_tract_with_a_reason() {
    let file = models().join("fusion.f32.onnx");
    let report = bench(&["--model", file.to_str().unwrap()]);
    let graph = &report["graphs"][0];
    assert_eq!((&graph["kernel"], &graph["int8_share"]), (&"tract".into(), &0.0.into()));
    let fallback_nodes = graph["fallback_nodes"].as_array().unwrap();
    let reason = |node: &Value| node["reason"].as_str().map(str::to_string);
    assert!(fallback_nodes.iter().any(|node| node["op"] == "Conv"));
    assert_eq!(
        reason(&fallback_nodes[0]).as_deref(),
        Some("its input face is not quantized")
    );
    assert!(report.get("pipeline").is_none());
}
