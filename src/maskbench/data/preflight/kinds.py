"""Every kind of finding, with its severity and its remedy: the one place to add another.

An error is what stops a training, falsifies what is learnt or falsifies what is measured; whatever CocoFile, the photo
reader or the data module refuses is one.
"""

from __future__ import annotations

from maskbench.data.preflight.findings import Kind

# Annotation files -----------------------------------------------------------------------------------------------------

FILE_MISSING = Kind(
    "file-missing",
    "error",
    "Annotation files that are not there",
    "set data.root to the folder, data.train_annotations and data.test_annotations to the json files in it",
)
FILE_UNREADABLE = Kind(
    "file-unreadable",
    "error",
    "Annotation files that are no json",
    "copy or export the file again: it was cut, or is something else",
)
FILE_FORM = Kind(
    "file-form",
    "error",
    "Annotation files that are not COCO's instances",
    "an object with the lists images, annotations and categories was expected",
)
FILE_NOTHING = Kind(
    "file-nothing",
    "error",
    "Annotation files without images or categories",
    "name a file that lists at least one of each",
)
RECORD_FORM = Kind(
    "record-form", "error", "Records that are none", "each is an object with named fields: mend the export"
)
FIELD_MISSING = Kind("field-missing", "error", "Records that lack a field", "add the field to every record")
FIELD_FORM = Kind("field-form", "error", "Fields of another type", "mend the record")

# Ids ------------------------------------------------------------------------------------------------------------------

ID_MISSING = Kind("id-missing", "error", "Records without an id", "number them, each kind of record from 1")
ID_FORM = Kind("id-form", "error", "Ids that are no integers", "write ids as whole numbers, without quotes or points")
ID_TWICE = Kind("id-twice", "error", "Ids that two records share", "every id must be its own: number the records anew")
ID_RANGE = Kind("id-range", "error", "Ids beyond 64 bits", "number the records anew")
ID_ZERO = Kind(
    "id-zero",
    "warning",
    "Annotations with the id 0",
    "COCO's evaluation takes 0 for 'unmatched' and counts the object as missed: number annotations from 1",
)
IMAGE_UNKNOWN = Kind(
    "image-unknown", "error", "Annotations of images that are not listed", "list the image, or remove the annotation"
)
CATEGORY_UNKNOWN = Kind(
    "category-unknown", "error", "Annotations of categories that are not listed", "list the category, or mend the id"
)

# Categories and classes -----------------------------------------------------------------------------------------------

CATEGORY_RENAMED = Kind(
    "category-renamed",
    "error",
    "Categories that have another name in another split",
    "all files need the same ids and names: export them together",
)
CATEGORY_NEW = Kind(
    "category-new",
    "error",
    "Categories that the training file lacks",
    "list them in the training file, too, or remove them from the other one",
)
CATEGORY_TWICE = Kind(
    "category-twice",
    "error",
    "Names that two categories have",
    "one class under two ids is learnt as two: give its annotations one id, or the categories two names",
)
CATEGORY_ALIKE = Kind(
    "category-alike",
    "warning",
    "Names that differ in case or blanks alone",
    "if they are one class, give its annotations one id",
)
CATEGORY_LACKING = Kind(
    "category-lacking",
    "note",
    "Categories that only the training file lists",
    "nothing, if they are of no interest in the test",
)
CATEGORY_GAPS = Kind(
    "category-gaps", "note", "Category ids with gaps", "nothing: labels are numbered by the order of the ids"
)
CLASS_UNUSED = Kind("class-unused", "note", "Classes without an object in any split", "nothing, or remove the category")
CLASS_UNTRAINED = Kind(
    "class-untrained",
    "warning",
    "Classes of the test split without an object to train on",
    "nobody can find them, and AP is the mean over classes: add examples, or remove the class from the test",
)
CLASS_UNTESTED = Kind(
    "class-untested", "note", "Classes without an object in the test split", "their AP will not be measured"
)
CLASS_RARE = Kind(
    "class-rare",
    "note",
    "Classes with less than a hundredth of the most frequent one's objects",
    "read AP by class; more examples help more than any method",
)

# Which photos ---------------------------------------------------------------------------------------------------------

NAME_FORM = Kind("name-form", "error", "File names that are none", "`file_name` names a file below the image folder")
NAME_CLIMBS = Kind(
    "name-climbs",
    "error",
    "File names that lead out of the data set",
    "such files are not read; put the photo into the image folder, or set data.root higher",
)
NAME_ABSOLUTE = Kind(
    "name-absolute",
    "error",
    "File names with an absolute path",
    "name photos relative to the image folder, or the data set works in this place alone",
)
NAME_SPELLING = Kind(
    "name-spelling",
    "error",
    "File names that are spelled otherwise on disk",
    "case and slashes count: rename the file or mend the record",
)
PHOTO_MISSING = Kind(
    "photo-missing",
    "error",
    "Photos that are not there",
    "check data.root and the image folder (data.train_images, data.test_images), or remove the records",
)
PHOTO_LINK = Kind("photo-link", "note", "Photos that are symbolic links", "copy what they point to along with them")
PHOTO_UNNAMED = Kind(
    "photo-unnamed", "note", "Photos on disk that no record names", "nothing, or add records if they belong to the set"
)
RECORD_TWICE = Kind(
    "record-twice",
    "warning",
    "Photos under two ids of one split",
    "what is annotated under one id is background under the other: join the records",
)

# What photos are like -------------------------------------------------------------------------------------------------

PHOTO_EMPTY = Kind("photo-empty", "error", "Photos of no bytes", "copy the file again, or remove its record")
PHOTO_NONE = Kind("photo-none", "error", "Files that are no image", "replace the file, or remove its record")
PHOTO_BROKEN = Kind(
    "photo-broken", "error", "Photos that are cut or broken", "copy the file again, or remove its record"
)
PHOTO_SKIPPED = Kind(
    "photo-skipped",
    "warning",
    "Photos of train that can't be read and are to be skipped",
    "nothing stands in their place (data.unreadable=skip), and one that is for tuning or testing stops there all the "
    "same: copy the files again, or remove their records",
)
PHOTO_BOMB = Kind(
    "photo-bomb", "error", "Photos of more pixels than are read", "cut the photo into tiles, or make it smaller"
)
PHOTO_LARGE = Kind(
    "photo-large",
    "warning",
    "Photos too large to be looked into here",
    "each takes 3 bytes a pixel wherever it is read: cut it into tiles, or make it smaller",
)
PHOTO_DEPTH = Kind(
    "photo-depth", "error", "Photos whose pixels are no 8 or 16 bit values", "convert them to 8 or 16 bits first"
)
SIZE_FORM = Kind("size-form", "error", "Images without a usable height and width", "give their stored size in pixels")
PHOTO_SIZE = Kind(
    "photo-size",
    "error",
    "Photos of another size than their record says",
    "masks of another size don't fit the photo: export the annotations again, from these photos",
)
PHOTO_TURNED = Kind(
    "photo-turned",
    "warning",
    "Photos that viewers turn (EXIF)",
    "they are read as stored; if they were annotated as seen, turn the pixels and drop the tag: see whether masks fit",
)
PHOTO_GREY = Kind("photo-grey", "note", "Grey photos", "nothing: red, green and blue get the same")
PHOTO_PALETTE = Kind("photo-palette", "note", "Photos with a palette", "nothing: they are read as RGB")
PHOTO_CMYK = Kind(
    "photo-cmyk", "warning", "Photos in CMYK", "they are read without a colour profile: convert them to RGB yourself"
)
PHOTO_ALPHA = Kind(
    "photo-alpha",
    "warning",
    "Photos with transparent pixels",
    "alpha is dropped, so what viewers hide is seen: blend the photo with a background",
)
PHOTO_16BIT = Kind("photo-16bit", "note", "Photos of 16 bits", "nothing: they are scaled to 8 bits, 65535 to 255")
PHOTO_DARK = Kind(
    "photo-dark",
    "warning",
    "Photos of 16 bits that use few of them",
    "scaled to 8 bits they are almost black: stretch them to the whole range first",
)
PHOTO_FRAMES = Kind(
    "photo-frames", "warning", "Photos of several frames", "the first one is read: store one frame a file"
)
PHOTO_BLANK = Kind("photo-blank", "warning", "Photos of a single colour", "see whether they were exported right")

# Masks ----------------------------------------------------------------------------------------------------------------

MASK_MISSING = Kind(
    "mask-missing",
    "error",
    "Objects without a mask",
    "a box alone is no instance: draw the mask, or remove the annotation",
)
MASK_FORM = Kind(
    "mask-form",
    "error",
    "Segmentations that are neither polygons nor run lengths",
    "expected [[x, y, x, y, x, y, …], …] or {size: [height, width], counts: …}",
)
RLE_SIZE = Kind(
    "rle-size",
    "error",
    "Run lengths of another size than their image",
    "`size` is [height, width] of the photo: export the mask again",
)
MASK_UNDECODABLE = Kind(
    "mask-undecodable", "error", "Masks that can't be decoded", "export the object again, or remove it"
)
COORDINATE_FORM = Kind(
    "coordinate-form",
    "error",
    "Polygons with coordinates that are no numbers",
    "NaN, infinity and text are no places: mend them",
)
MASK_OUTSIDE = Kind(
    "mask-outside",
    "error",
    "Objects that lie outside of their photo",
    "were the annotations made on another size or another photo? Export them again",
)
POLYGON_BEYOND = Kind(
    "polygon-beyond",
    "warning",
    "Polygons that reach beyond their photo",
    "what lies outside is cut off; if it is much, they were made on another size",
)
MASK_EMPTY = Kind(
    "mask-empty",
    "warning",
    "Masks without a pixel",
    "nobody can find them, so they count as missed: draw them again, or remove them",
)
MASK_PIXEL = Kind("mask-pixel", "warning", "Masks of one pixel", "mostly a slip of the mouse: remove them")
POLYGON_FLAT = Kind(
    "polygon-flat",
    "warning",
    "Polygons without an area",
    "fewer than three different points, or all in a line: remove them",
)
POLYGON_CROSSES = Kind(
    "polygon-crosses",
    "warning",
    "Polygons that cross themselves",
    "what is enclosed twice is a hole, as in COCO's tools: see whether the mask is what was meant",
)
BOX_FORM = Kind(
    "box-form",
    "error",
    "Boxes that are not x, y, width and height",
    "box AP is measured by them: mend `bbox`, or leave it out everywhere",
)
BOX_OFF = Kind(
    "box-off",
    "warning",
    "Boxes that are not around their masks",
    "box AP is measured by `bbox`: export it again, or leave it out",
)
BOX_CORNERS = Kind(
    "box-corners",
    "error",
    "Files whose boxes are two corners",
    "`bbox` is [x, y, width, height]: box AP would be measured by wrong ones",
)
AREA_FORM = Kind(
    "area-form",
    "error",
    "Areas that are no numbers",
    "AP by size is measured by `area`: mend it, or leave it out everywhere",
)
AREA_OFF = Kind(
    "area-off",
    "warning",
    "Areas that are not those of the masks",
    "AP by size is measured by `area`: count the mask's pixels, or leave it out",
)
CROWD_FORM = Kind(
    "crowd-form", "error", "`iscrowd` that is neither 0 nor 1", "write 0 for an object, 1 for a crowd region"
)
CROWD_POLYGONS = Kind(
    "crowd-polygons",
    "warning",
    "Crowd regions drawn as polygons",
    "crowds are neither learnt nor counted: if it is one object, iscrowd is 0",
)
CROWD_MANY = Kind(
    "crowd-many",
    "warning",
    "Files in which many annotations are crowds",
    "crowds are neither learnt nor counted; CVAT writes iscrowd=1 for whatever was painted as a mask: set it to 0",
)
OBJECT_TWICE = Kind(
    "object-twice", "warning", "Objects that are annotated twice", "the second one counts as missed: remove it"
)
OBJECT_CLASSES = Kind(
    "object-classes", "warning", "Masks that two classes claim", "remove one, unless an object may be of two classes"
)

# Photos and their objects ---------------------------------------------------------------------------------------------

OBJECTS_NONE = Kind(
    "objects-none",
    "error",
    "Splits without an object",
    "there is nothing to learn or to measure: name another annotation file, or see whether all are crowds",
)
PHOTO_BARE = Kind("photo-bare", "note", "Photos without an object", "nothing, if there is none on them")
OBJECTS_BEYOND = Kind(
    "objects-beyond",
    "warning",
    "Photos with more objects than may be found",
    "the others count as missed: evaluation=crowded, or a higher evaluation.point.max_instances",
)
OBJECTS_UNTOLD = Kind(
    "objects-untold", "error", "Photos with more objects than can be told apart", "cut the photo into tiles"
)
OBJECTS_TINY = Kind(
    "objects-tiny",
    "warning",
    "Splits in which many objects are smaller than 4 x 4 pixels of the network's input",
    "a larger transforms.eval.short, or tiles, lets them be seen",
)
MAP_BROKEN = Kind(
    "map-broken", "error", "Maps of stuff and things that can't be used", "mend data.train_semantic, or set it to null"
)

# Across splits --------------------------------------------------------------------------------------------------------

SPLIT_SAME = Kind(
    "split-same",
    "error",
    "Splits that are one annotation file",
    "what is measured on photos that were trained on says nothing: name another file",
)
LEAK_FILE = Kind(
    "leak-file",
    "error",
    "Photos that two splits name",
    "what is measured on them says nothing: leave them to one split",
)
LEAK_COPY = Kind(
    "leak-copy",
    "error",
    "Photos that have a copy in another split",
    "what is measured on them says nothing: remove one of each pair",
)
LEAK_NEAR = Kind(
    "leak-near",
    "warning",
    "Photos that look like one of another split",
    "the same scene in both splits makes results better than they are: split by scene, plate or film",
)
PHOTO_COPY = Kind(
    "photo-copy",
    "warning",
    "Photos that have a copy in their own split",
    "remove one of each pair: tune, and test with data.test_share, are taken from the training photos and may get the "
    "other",
)
PHOTO_NEAR = Kind(
    "photo-near",
    "note",
    "Photos that look like another of their split",
    "nothing, or keep scenes together (data.group_by): tune, and test with data.test_share, are taken from the "
    "training photos",
)
