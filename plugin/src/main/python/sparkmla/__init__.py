"""Bulk text generation with multi-head latent attention models on Apache Spark.

This package is inside the plugin's jar. Give the jar to Spark twice, as --jars and as --py-files; in a session that was
started with spark.jars, spark.sparkContext.addPyFile(jar) does the latter.
"""

from sparkmla.generator import MlaGenerator

__all__ = ["MlaGenerator"]
