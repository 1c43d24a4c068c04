"""The PySpark form of io.github.sparkmla.spark.MlaGenerator."""

import sys

from pyspark import keyword_only
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import JavaMLReadable, JavaMLReader, JavaMLWritable
from pyspark.ml.wrapper import JavaTransformer

_JAVA_PACKAGE = "io.github.sparkmla.spark"
_JAVA_CLASS = _JAVA_PACKAGE + ".MlaGenerator"

# PySpark finds the Python class of a loaded pipeline stage by importing the name of its Java class.
sys.modules[_JAVA_PACKAGE] = sys.modules[__name__]


def _param(name, doc, converter):
    return Param(Params._dummy(), name, doc, typeConverter=converter)


class MlaGenerator(JavaTransformer, JavaMLReadable, JavaMLWritable):
    """Appends a column with what a model generates for each row.

    The input column is a string, continued as it stands, or an array of struct<role: string, content: string>, rendered
    with the checkpoint's chat template. The result is a struct: text, token_ids, finish_reason (stop, length or error),
    prompt_tokens, completion_tokens, cached_tokens, logprobs, error.

    >>> MlaGenerator(model="/models/v2-lite", inputCol="prompt", maxTokens=128).transform(df)
    """

    model = _param("model", "folder of the checkpoint, on the driver and every executor", TypeConverters.toString)
    inputCol = _param("inputCol", "column of prompts or of messages", TypeConverters.toString)
    outputCol = _param("outputCol", "column to append", TypeConverters.toString)
    maxTokens = _param("maxTokens", "most tokens to generate for a row", TypeConverters.toInt)
    temperature = _param("temperature", "0 is greedy", TypeConverters.toFloat)
    topK = _param("topK", "sample among the k most likely tokens; 0: all", TypeConverters.toInt)
    topP = _param("topP", "sample among the fewest tokens that reach this probability", TypeConverters.toFloat)
    seed = _param("seed", "of the sampling", TypeConverters.toInt)
    logprobs = _param("logprobs", "-1 none, 0 each token's own, n also the n most likely", TypeConverters.toInt)
    ignoreEos = _param("ignoreEos", "whether to go on past the end of sequence", TypeConverters.toBoolean)
    failOnError = _param("failOnError", "whether a bad row fails the job", TypeConverters.toBoolean)
    keyCol = _param("keyCol", "column that keys a row's randomness instead of its prompt", TypeConverters.toString)

    @keyword_only
    def __init__(
        self,
        *,
        model=None,
        inputCol=None,
        outputCol="generated",
        maxTokens=64,
        temperature=0.0,
        topK=0,
        topP=1.0,
        seed=0,
        logprobs=-1,
        ignoreEos=False,
        failOnError=False,
        keyCol=None,
    ):
        super().__init__()
        self._java_obj = self._new_java_obj(_JAVA_CLASS, self.uid)
        self._setDefault(
            outputCol="generated",
            maxTokens=64,
            temperature=0.0,
            topK=0,
            topP=1.0,
            seed=0,
            logprobs=-1,
            ignoreEos=False,
            failOnError=False,
        )
        self._set(**self._input_kwargs)

    def setParams(self, **params):
        """Sets any of the parameters by name."""
        return self._set(**params)

    @classmethod
    def read(cls):
        return _Reader(cls)


class _Reader(JavaMLReader):
    @classmethod
    def _java_loader_class(cls, clazz):
        return _JAVA_CLASS


def _add_accessors(param):
    """getX and setX, as every transformer of Spark ML has them."""

    def get(self):
        return self.getOrDefault(getattr(self, param.name))

    def set(self, value):
        return self._set(**{param.name: value})

    suffix = param.name[0].upper() + param.name[1:]
    get.__doc__ = set.__doc__ = param.doc
    setattr(MlaGenerator, "get" + suffix, get)
    setattr(MlaGenerator, "set" + suffix, set)


for _value in list(vars(MlaGenerator).values()):
    if isinstance(_value, Param):
        _add_accessors(_value)
