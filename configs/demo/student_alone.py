"""The demo's student without teachers: what distillation must beat.

Command: python tools/train.py configs/demo/student_alone.py \\
             --work-dir work_dirs/demo/student_alone
Result:  80.3 % accuracy (seed 0).
Time:    some 1 min on one core, an estimate from a busy machine.
"""

_base_ = [
    '../_base_/demo_student.py', '../_base_/demo_digits.py',
    '../_base_/demo_schedule_3e.py',
    '../_base_/demo_runtime.py'
]
