_base_ = [
    '../_base_/demo_student.py', '../_base_/demo_digits.py',
    '../_base_/demo_schedule_3e.py',
    '../_base_/demo_runtime.py'
]
