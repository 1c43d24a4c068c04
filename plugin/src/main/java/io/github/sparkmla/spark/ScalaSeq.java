package io.github.sparkmla.spark;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import scala.collection.immutable.Seq;
import scala.jdk.javaapi.CollectionConverters;

/** Scala's immutable sequences, as Spark's plans want them. */
final class ScalaSeq {
    private ScalaSeq() {}

    @SafeVarargs
    @SuppressWarnings("varargs") // the array is only read
    static <T> Seq<T> of(T... elements) {
        return of(Arrays.asList(elements));
    }

    static <T> Seq<T> of(List<? extends T> elements) {
        return CollectionConverters.<T>asScala(new ArrayList<T>(elements)).toSeq();
    }

    static <T> List<T> toJava(Seq<? extends T> elements) {
        return new ArrayList<>(CollectionConverters.asJava(elements));
    }

    /** The same sequence; Scala's are covariant, which Java does not know. */
    @SuppressWarnings("unchecked")
    static <T> Seq<T> widen(Seq<?> elements) {
        return (Seq<T>) elements;
    }

    static <T> Seq<T> concat(Seq<? extends T> first, Seq<? extends T> second) {
        List<T> all = toJava(first);
        all.addAll(CollectionConverters.asJava(second));
        return of(all);
    }

    static <T> Seq<T> append(Seq<? extends T> elements, T last) {
        return concat(elements, ScalaSeq.<T>of(List.of(last)));
    }
}
