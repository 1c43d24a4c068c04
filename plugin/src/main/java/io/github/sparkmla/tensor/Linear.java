package io.github.sparkmla.tensor;

/** The weight [out, in] and bias [out], or null, of a linear layer. */
public record Linear(Tensor weight, Tensor bias) {}
