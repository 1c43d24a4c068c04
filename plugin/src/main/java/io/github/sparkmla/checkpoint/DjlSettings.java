package io.github.sparkmla.checkpoint;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.nio.file.attribute.UserPrincipal;
import java.util.Set;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Keeps DJL, whose tokenizer library this uses, off the network: it would fetch a CUDA build and report its use. Takes
 * effect only before DJL's first class is loaded. Properties that are already set are left alone.
 */
final class DjlSettings {
    private static final Logger LOG = LoggerFactory.getLogger(DjlSettings.class);
    private static final Set<PosixFilePermission> PRIVATE = PosixFilePermissions.fromString("rwx------");

    private static boolean applied;

    private DjlSettings() {}

    static synchronized void apply() {
        if (applied) {
            return;
        }
        set("RUST_FLAVOR", "cpu");
        set("ai.djl.offline", "true");
        set("OPT_OUT_TRACKING", "true");
        if (System.getenv("DJL_CACHE_DIR") == null && System.getProperty("DJL_CACHE_DIR") == null) {
            System.setProperty(
                    "DJL_CACHE_DIR",
                    cacheFolder(Path.of(System.getProperty("java.io.tmpdir"))).toString());
        }
        applied = true;
    }

    private static void set(String key, String value) {
        if (System.getProperty(key) == null) {
            System.setProperty(key, value);
        }
    }

    /**
     * Where DJL unpacks its native library, shared by the processes of a user (DJL unpacks beside it and renames, so
     * they may start at once). The library is run, so nobody else may have made the folder: if somebody did, this
     * process gets one of its own.
     */
    static Path cacheFolder(Path temp) {
        Path shared = temp.resolve("spark-mla-" + System.getProperty("user.name"));
        try {
            Path own = Files.createTempDirectory(temp, "spark-mla-", PosixFilePermissions.asFileAttribute(PRIVATE));
            try {
                Files.createDirectory(shared, PosixFilePermissions.asFileAttribute(PRIVATE));
            } catch (FileAlreadyExistsException e) {
                if (!isPrivate(shared, Files.getOwner(own))) {
                    LOG.warn("{} is not a private folder of this user: native libraries go to {}", shared, own);
                    return own;
                }
            }
            Files.delete(own);
            return shared;
        } catch (IOException e) {
            throw new UncheckedIOException("cannot create a folder for native libraries under " + temp, e);
        }
    }

    private static boolean isPrivate(Path folder, UserPrincipal owner) throws IOException {
        return Files.isDirectory(folder, LinkOption.NOFOLLOW_LINKS)
                && Files.getOwner(folder, LinkOption.NOFOLLOW_LINKS).equals(owner)
                && Files.getPosixFilePermissions(folder, LinkOption.NOFOLLOW_LINKS)
                        .equals(PRIVATE);
    }
}
