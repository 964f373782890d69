// Reads an animated GIF back with giflib.
#ifndef TW_TESTS_SUPPORT_GIF_H
#define TW_TESTS_SUPPORT_GIF_H

#include <gif_lib.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tw_test {

struct GifFrame {
    int delay = -1;           // hundredths of a second
    std::vector<uint8_t> rgb; // [height, width, 3]
};

struct Animation {
    int width = 0, height = 0;
    bool forever = false;
    std::vector<GifFrame> frames;
};

// What giflib reads back.
inline Animation decode_gif(const std::string &path) {
    Animation a;
    int error = 0;
    GifFileType *gif = DGifOpenFileName(path.c_str(), &error);
    if (!gif || DGifSlurp(gif) != GIF_OK) {
        ADD_FAILURE() << path << ": " << (gif ? gif->Error : error);
        return a;
    }
    a.width = gif->SWidth;
    a.height = gif->SHeight;
    for (int f = 0; f < gif->ImageCount; f++) {
        const SavedImage &image = gif->SavedImages[f];
        const ColorMapObject *map =
            image.ImageDesc.ColorMap ? image.ImageDesc.ColorMap : gif->SColorMap;
        GifFrame frame;
        GraphicsControlBlock control;
        if (DGifSavedExtensionToGCB(gif, f, &control) == GIF_OK) {
            frame.delay = control.DelayTime;
            EXPECT_EQ(control.TransparentColor, NO_TRANSPARENT_COLOR);
        }
        for (int e = 0; e < image.ExtensionBlockCount; e++) {
            const ExtensionBlock &block = image.ExtensionBlocks[e];
            if (block.Function == APPLICATION_EXT_FUNC_CODE && block.ByteCount == 11)
                a.forever = std::string((const char *)block.Bytes, 11) == "NETSCAPE2.0";
        }
        EXPECT_EQ(image.ImageDesc.Width, a.width);
        EXPECT_EQ(image.ImageDesc.Height, a.height);
        for (int i = 0; map && i < a.width * a.height; i++) {
            const GifColorType &c = map->Colors[image.RasterBits[i]];
            frame.rgb.insert(frame.rgb.end(), {c.Red, c.Green, c.Blue});
        }
        a.frames.push_back(frame);
    }
    DGifCloseFile(gif, &error);
    return a;
}

} // namespace tw_test

#endif
