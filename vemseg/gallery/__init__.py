"""What ``render`` shows of a volume, its labels and a reference: pictures, surfaces, and views elsewhere.

    wishes     what is wanted beside planes and a montage
    view       the volumes of a scene, opened and thinned, with the names and colours of their classes
    pictures   planes, montage, comparison, confidence, features
    space      meshes, a picture in space, a turning one
    links      a state of neuroglancer
    window     napari

Each kind of thing is an ``Exhibit``: which files it makes, and how. ``exhibits`` returns those that a view
has; a further kind is one line there.
"""

from vemseg.gallery.exhibits import Exhibit, every_name, exhibits
from vemseg.gallery.view import View
from vemseg.gallery.window import check_window, show
from vemseg.gallery.wishes import Wishes

__all__ = ["Exhibit", "View", "Wishes", "check_window", "every_name", "exhibits", "show"]
