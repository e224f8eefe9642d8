"""One decoder, driven by a spec read from config.json, with weights from a Hugging Face directory."""
