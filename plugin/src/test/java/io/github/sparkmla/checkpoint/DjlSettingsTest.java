package io.github.sparkmla.checkpoint;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Native code is loaded from the cache folder, so it must be nobody else's. */
class DjlSettingsTest {
    @TempDir
    Path temp;

    @Test
    void theFolderIsPrivateAndShared() throws IOException {
        Path folder = DjlSettings.cacheFolder(temp);
        assertEquals(PosixFilePermissions.fromString("rwx------"), Files.getPosixFilePermissions(folder));
        assertEquals(folder, DjlSettings.cacheFolder(temp));
        try (Stream<Path> left = Files.list(temp)) {
            assertEquals(List.of(folder), left.toList());
        }
    }

    @Test
    void aFolderThatOthersMayWriteIsNotUsed() throws IOException {
        Path folder = DjlSettings.cacheFolder(temp);
        Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwxrwxrwx"));
        assertNotEquals(folder, DjlSettings.cacheFolder(temp));
    }

    @Test
    void aLinkIsNotFollowed() throws IOException {
        Path folder = DjlSettings.cacheFolder(temp);
        Path elsewhere = Files.move(folder, temp.resolve("elsewhere"));
        Files.createSymbolicLink(folder, elsewhere);
        assertNotEquals(folder, DjlSettings.cacheFolder(temp));
    }
}
