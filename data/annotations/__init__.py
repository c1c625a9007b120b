"""Annotations of the three formats of the field, as one typed set.

Where formats differ from each other, the differences end in here: corners, units, class numbers and file layouts.
"""

from data.annotations.annotation_set import AnnotationReport, AnnotationSet
from data.annotations.reading import Format, read_annotations

__all__ = ["AnnotationReport", "AnnotationSet", "Format", "read_annotations"]
