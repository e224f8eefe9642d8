"""The source of Prometheus' rules and Grafana's dashboards. ``make k8s`` writes them into k8s/base."""
