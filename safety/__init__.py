"""Safety: inspects texts of requests and answers, and returns verdicts. It knows neither HTTP, nor Ray, nor the models
that are served."""
