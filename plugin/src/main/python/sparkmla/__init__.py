"""Bulk text generation with multi-head latent attention models on Apache Spark."""

from sparkmla.generator import MlaGenerator

__all__ = ["MlaGenerator"]
