package io.github.sparkmla.natives.presets;

import org.bytedeco.javacpp.annotation.Platform;
import org.bytedeco.javacpp.annotation.Properties;
import org.bytedeco.javacpp.tools.Info;
import org.bytedeco.javacpp.tools.InfoMap;
import org.bytedeco.javacpp.tools.InfoMapper;

/**
 * How JavaCPP turns {@code native/include/mla.h} into {@code io.github.sparkmla.natives.Mla}: functions become static
 * methods, structs nested classes, enum constants ints. Run by the build; nothing of it is needed at run time except the
 * names of the libraries.
 */
@Properties(
        value = @Platform(value = "linux-x86_64", include = "mla.h", link = "mla"),
        target = "io.github.sparkmla.natives.Mla",
        global = "io.github.sparkmla.natives.Mla")
public class MlaPresets implements InfoMapper {

    @Override
    public void map(InfoMap infoMap) {
        // Plain ints: a status or a dtype crosses JNI as a number.
        infoMap.put(new Info("mla_status", "mla_dtype", "mla_scoring", "mla_group_score", "mla_activation")
                .cast()
                .valueTypes("int"));
    }
}
